"""Our own keys: made once, for us alone, and in formats that others read."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from gpucloud.errors import RemoteError
from gpucloud.remote.keys import identity, new_key_pair

not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")

MAKE = """\
import sys
from pathlib import Path
from gpucloud.remote.keys import identity
print("ready", flush=True)
sys.stdin.readline()
print(identity(Path(sys.argv[1])).public)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_key_is_made_once_and_for_us_alone(tmp_path: Path, mask: int) -> None:
    folder = tmp_path / "data" / "ssh keys"
    before = os.umask(mask)
    try:
        ours = identity(folder)
    finally:
        os.umask(before)
    assert (mode(folder), mode(ours.file)) == (0o700, 0o600)
    assert list(folder.iterdir()) == [ours.file]
    text = ours.file.read_bytes()
    assert identity(folder) == ours
    assert ours.file.read_bytes() == text


def test_what_is_said_of_a_key_is_its_public_half(tmp_path: Path) -> None:
    ours = identity(tmp_path)
    assert asyncssh.read_private_key(ours.file).export_public_key().decode().split() == ours.public.split()
    assert ours.public.startswith("ssh-ed25519 ")
    assert "\n" not in ours.public


def test_many_processes_that_come_at_once_make_one_key(tmp_path: Path) -> None:
    folder = tmp_path / "ssh"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # They wait for this line, so they start together.
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = {process.communicate()[0].strip() for process in processes}
    assert found == {identity(folder).public}
    assert [file.name for file in folder.iterdir()] == ["id_ed25519"]


def test_a_key_of_another_kind_that_somebody_put_there_is_used(tmp_path: Path) -> None:
    theirs = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    theirs.write_private_key(str(tmp_path / "id_ed25519"))
    assert identity(tmp_path).public.split()[:2] == theirs.export_public_key().decode().split()[:2]


BROKEN: dict[str, Callable[[asyncssh.SSHKey], bytes]] = {
    "empty": lambda key: b"",
    "garbage": lambda key: bytes(range(256)),
    "cut off": lambda key: key.export_private_key()[:150],
    "public half": lambda key: key.export_public_key(),
    "passphrase": lambda key: key.export_private_key(passphrase="secret", rounds=50),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_key_is_kept_and_moving_it_aside_as_told_helps(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    file = folder / "id_ed25519"
    file.write_bytes(content := BROKEN[kind](asyncssh.generate_private_key("ssh-ed25519")))
    with pytest.raises(RemoteError, match="our SSH key cannot be used") as caught:
        identity(folder)
    assert caught.value.why.removeprefix(f"{file}: ") not in ("", caught.value.why)
    command, _, warning = caught.value.hint.partition(";")
    assert "machines that are up" in warning
    subprocess.run(["sh", "-c", command], check=True)
    assert (folder / "id_ed25519.old").read_bytes() == content
    assert identity(folder).file == file


def test_a_key_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    # As a copy from a backup is; the system's own ssh would not use it.
    ours = identity(tmp_path)
    ours.file.chmod(0o644)
    assert identity(tmp_path) == ours
    assert mode(ours.file) == 0o600


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RemoteError, match="our SSH key cannot be used") as caught:
        identity(tmp_path / "file" / "ssh")
    assert caught.value.why == f"{tmp_path}/file/ssh/id_ed25519: Not a directory"
    assert f"make {tmp_path}/file/ssh a folder" in caught.value.hint


@not_root
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o500)
    with pytest.raises(RemoteError) as caught:
        identity(folder)
    assert caught.value.why == f"{folder}/id_ed25519: Permission denied"
    assert list(folder.iterdir()) == []


def test_a_folder_in_the_place_of_the_key_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "id_ed25519").mkdir()
    with pytest.raises(RemoteError, match="our SSH key cannot be used") as caught:
        identity(tmp_path)
    assert "Is a directory" in caught.value.why


def test_each_new_pair_is_another_one() -> None:
    pairs = [new_key_pair() for _ in range(5)]
    assert len({pair.private for pair in pairs}) == len({pair.public for pair in pairs}) == 5


@needs_keygen
def test_openssh_reads_both_halves_of_a_new_pair_as_one_key(tmp_path: Path) -> None:
    pair = new_key_pair()
    for name, text in (("private", pair.private), ("public", pair.public)):
        file = tmp_path / name
        file.touch(mode=0o600)
        file.write_text(text)
    derived = keygen("-y", "-P", "", "-f", tmp_path / "private")
    assert derived.split()[:2] == pair.public.split()
    assert pair.private.endswith("-----END OPENSSH PRIVATE KEY-----\n")
    shown = [keygen("-l", "-f", tmp_path / name) for name in ("private", "public")]
    assert shown[0].split()[:2] == shown[1].split()[:2]
    assert [line.split()[0] for line in shown] == ["256", "256"]
    assert all(line.endswith("(ED25519)\n") for line in shown)


def keygen(*words: str | Path) -> str:
    done = subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True)
    return done.stdout
