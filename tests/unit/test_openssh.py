"""The files for the system's own ``ssh``: what they say, and what stays as it was in the user's."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from gpucloud.errors import ConfigError
from gpucloud.model import SshAddress
from gpucloud.remote.keys import new_key_pair
from gpucloud.remote.openssh import INCLUDE_NOTE, Target, install_include, remove_include, write
from tests.harness.sshd import openssh_host

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")

ODD = (
    "with a space",
    "50% of %h",
    "with \"double\" and 'single' quotes",
    'back\\slash, two \\\\ and \\"',
    "$HOME and `tick`",
    "# hash; semi & [a-z]*?",
    "ünï-côdé-機械",
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def a_target(name: str = "train", host: str = "192.0.2.1") -> Target:
    return Target(name, SshAddress(host, 2222, "ann"), f"alias-of-{name}", KEY)


def understood(config: Path, name: str) -> dict[str, str]:
    """What OpenSSH makes of a config for a name."""
    command = ["ssh", "-G", "-F", str(config), name]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_files_are_for_us_alone_and_written_anew_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "ssh"
    assert write(folder, tmp_path / "id", [a_target("a"), a_target("b")]) == folder / "config"
    assert (mode(folder), mode(folder / "config"), mode(folder / "known_hosts")) == (0o700, 0o600, 0o600)
    assert (folder / "known_hosts").read_text() == f"alias-of-a {KEY}\nalias-of-b {KEY}\n"
    write(folder, tmp_path / "id", [])
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"config": "", "known_hosts": ""}


@needs_ssh
def test_ssh_trusts_the_pinned_key_and_offers_ours_and_nothing_else(tmp_path: Path) -> None:
    config = write(tmp_path, tmp_path / "id", [a_target("a"), a_target("b", host="192.0.2.2")])
    seen = understood(config, "b")
    assert (seen["hostname"], seen["port"], seen["user"]) == ("192.0.2.2", "2222", "ann")
    assert seen["hostkeyalias"] == "alias-of-b"
    assert seen["userknownhostsfile"] == str(tmp_path / "known_hosts")
    assert seen["globalknownhostsfile"] == "/dev/null"
    assert (seen["stricthostkeychecking"], seen["updatehostkeys"]) == ("true", "false")
    assert (seen["identitiesonly"], seen["identityagent"]) == ("yes", "none")
    assert seen["identityfile"] == str(tmp_path / "id")
    assert not {"proxyjump", "proxycommand"} & seen.keys()
    assert understood(config, "another")["hostname"] == "another"


@needs_ssh
@pytest.mark.parametrize("host", ["gpu.example.org", "2001:db8::7", "fe80::1%eth0"])
def test_every_kind_of_address_is_understood(tmp_path: Path, host: str) -> None:
    config = write(tmp_path, tmp_path / "id", [a_target(host=host)])
    assert understood(config, "train")["hostname"] == host


@needs_ssh
def test_a_jump_host_has_a_key_an_alias_and_an_identity_of_its_own(tmp_path: Path) -> None:
    jump = SshAddress("192.0.2.9", 22, "bob", identity_file="~/theirs")
    address = SshAddress("10.0.0.1", 22, "ann", jump=jump)
    config = write(tmp_path, tmp_path / "id", [Target("train", address, "gc-1", KEY, jump_key=f"{KEY} x")])
    assert understood(config, "train")["proxycommand"].endswith(" gc-1-jump")
    seen = understood(config, "gc-1-jump")
    assert (seen["hostname"], seen["user"], seen["hostkeyalias"]) == ("192.0.2.9", "bob", "gc-1-jump")
    assert seen["identityfile"] == str(Path.home() / "theirs")
    assert (tmp_path / "known_hosts").read_text() == f"gc-1 {KEY}\ngc-1-jump {KEY} x\n"


@pytest.mark.needs_sshd
def test_ssh_logs_in_from_a_folder_of_any_name(tmp_path: Path) -> None:
    with openssh_host(tmp_path / "box") as host:
        address = SshAddress(host.host, host.port, host.user)
        over = SshAddress(host.host, host.port, host.user, jump=address)
        for name in ODD:
            folder = tmp_path / name / "ssh"
            folder.mkdir(parents=True)
            shutil.copy(host.identity, folder / "id")
            targets = [
                Target("near", address, "a", host.host_key),
                Target("far", over, "b", host.host_key, jump_key=host.host_key),
            ]
            config = write(folder, folder / "id", targets)
            include = tmp_path / name / "user's config"
            install_include(include, config)
            assert [login(include, target) for target in ("near", "far")] == ["in\n", "in\n"], name
            write(folder, folder / "id", [Target("near", address, "a", new_key_pair().public)])
            assert login(include, "near") == "", "another key than the pinned one is refused"


def login(config: Path, name: str) -> str:
    command = ["ssh", "-F", str(config), "-o", "BatchMode=yes", name, "echo in"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout


THEIRS = (
    b"",
    b"Host mine\n  HostName example.org\n",
    b"Host mine\r\n  HostName example.org\r\n",
    b"# no newline at the end, and \xff\xfe no UTF-8",
    b"\n\n\tInclude ~/.ssh/other\n",
)


@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("permissions", [0o600, 0o644])
def test_one_line_comes_to_the_top_and_the_rest_stays_byte_for_byte(
    tmp_path: Path, theirs: bytes, permissions: int
) -> None:
    config = tmp_path / "config"
    config.write_bytes(theirs)
    config.chmod(permissions)
    assert install_include(config, tmp_path / "ours")
    head, _, rest = config.read_bytes().partition(b"\n\n")
    assert head.decode().splitlines() == [INCLUDE_NOTE, f'Include "{tmp_path}/ours"']
    assert rest == theirs
    assert mode(config) == permissions
    before = config.stat()
    assert not install_include(config, tmp_path / "ours")
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("theirs", THEIRS)
def test_a_line_that_led_elsewhere_is_replaced(tmp_path: Path, theirs: bytes) -> None:
    config = tmp_path / "config"
    config.write_bytes(theirs)
    install_include(config, tmp_path / "before")
    assert install_include(config, tmp_path / "after")
    text = config.read_bytes()
    assert b"/before" not in text
    assert text.count(INCLUDE_NOTE.encode()) == 1
    assert text.endswith(b"\n\n" + theirs)


@pytest.mark.parametrize("theirs", THEIRS)
def test_what_was_included_can_be_taken_out_again(tmp_path: Path, theirs: bytes) -> None:
    config = tmp_path / "config"
    config.write_bytes(theirs)
    config.chmod(0o640)
    assert not remove_include(config)
    install_include(config, tmp_path / "ours")
    assert remove_include(config)
    assert (config.read_bytes(), mode(config)) == (theirs, 0o640)
    assert not remove_include(tmp_path / "none")


@needs_ssh
def test_the_include_is_in_force_whatever_follows(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n  User somebody\n  Port 1\n")
    install_include(config, write(tmp_path / "data", tmp_path / "id", [a_target()]))
    assert [understood(config, name)["port"] for name in ("train", "another")] == ["2222", "1"]


def test_a_missing_folder_is_made_for_the_user_alone(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    assert install_include(config, tmp_path / "ours")
    assert (mode(config.parent), mode(config)) == (0o700, 0o600)


def test_a_config_that_is_a_symlink_stays_one(tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "ssh config").write_text("Host mine\n")
    config = tmp_path / "config"
    config.symlink_to("dotfiles/ssh config")
    assert install_include(config, tmp_path / "ours")
    assert config.is_symlink()
    assert (dotfiles / "ssh config").read_text().endswith("\n\nHost mine\n")
    assert not install_include(config, tmp_path / "ours")


@pytest.mark.parametrize("trouble", ["no folder", "a folder", "nowhere"])
def test_what_cannot_be_changed_is_told_with_the_line_to_put_there(tmp_path: Path, trouble: str) -> None:
    config = tmp_path / "config"
    if trouble == "no folder":
        (tmp_path / "file").touch()
        config = tmp_path / "file" / "config"
    elif trouble == "a folder":
        config.mkdir()
    else:
        config.symlink_to(tmp_path / "no" / "such" / "folder")
    with pytest.raises(ConfigError, match="cannot be changed") as caught:
        install_include(config, tmp_path / "ours")
    assert caught.value.why
    assert caught.value.hint == f'put this line at its top: Include "{tmp_path}/ours"'


@not_root
def test_a_folder_that_may_not_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "ssh" / "config"
    config.parent.mkdir()
    config.write_text("Host mine\n")
    config.parent.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be changed"):
        install_include(config, tmp_path / "ours")
    assert config.read_text() == "Host mine\n"


@pytest.mark.parametrize(
    "address",
    [
        SshAddress("192.0.2.1\n  ProxyCommand touch /tmp/owned"),
        SshAddress("192.0.2.1", user="root\nProxyCommand touch /tmp/owned"),
        SshAddress("-oProxyCommand=id"),
        SshAddress("two words"),
        SshAddress(""),
        SshAddress("192.0.2.1", proxy=("nc", "a\nb")),
        SshAddress("192.0.2.1", jump=SshAddress('a"b')),
    ],
)
def test_what_a_provider_tells_becomes_no_setting_of_its_own(tmp_path: Path, address: SshAddress) -> None:
    target = Target("x", address, "alias", "ssh-ed25519 AAAA")
    with pytest.raises(ConfigError, match="cannot be used in an SSH address"):
        write(tmp_path / "ssh", tmp_path / "key", [target])
    assert not (tmp_path / "ssh").exists()


def test_a_shared_connection_and_a_proxy_are_told_to_ssh(tmp_path: Path) -> None:
    address = SshAddress("192.0.2.1", proxy=("a proxy", "100%", "%h:%p"))
    target = Target("x", address, "alias", "ssh-ed25519 AAAA", control=tmp_path / "a socket")
    config = write(tmp_path / "ssh", tmp_path / "key", [target], persist_s=90)
    shown = subprocess.run(["ssh", "-G", "-F", str(config), "x"], capture_output=True, text=True, check=True)
    settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines() if " " in line)
    assert settings["controlpath"] == str(tmp_path / "a socket")
    assert settings["controlmaster"] == "auto"
    assert settings["controlpersist"] == "90"
    assert settings["proxycommand"] == "'a proxy' 100%% %h:%p"
    alone = write(tmp_path / "ssh", tmp_path / "key", [target])
    assert "Control" not in alone.read_text()
