"""Where provider keys are found, which one wins, and who may read the file of ours."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.config import Config, load
from gpucloud.credentials import MISSING, CredentialFile, shown, source_of
from gpucloud.errors import AuthError, ConfigError, GpucloudError
from gpucloud.provider import Credential, FileFormat, ProviderSettings, VendorFile
from gpucloud.redact import HIDDEN, scrub

KEY = Credential(
    "api_key",
    ("ACME_API_KEY", "ACME_TOKEN"),
    (
        VendorFile("~/.acme/config.toml", FileFormat.TOML, "default.api_key"),
        VendorFile("~/.config/acme/key", FileFormat.PLAIN),
    ),
    "https://acme.example/keys",
)
OTHER = Credential("client_id")

PLACES: dict[str, str | dict[str, str]] = {
    "environment GPUCLOUD_ACME_API_KEY": {"GPUCLOUD_ACME_API_KEY": "own-variable"},
    "environment ACME_API_KEY": {"ACME_API_KEY": "first-variable"},
    "environment ACME_TOKEN": {"ACME_TOKEN": "second-variable"},
    "~/.config/gpucloud/credentials.toml": '[acme]\napi_key = "our-file"\n',
    "~/.acme/config.toml": '[default]\napi_key = "their-file"\n',
    "~/.config/acme/key": "their-other-file\n",
    "~/.config/gpucloud/config.toml": '[providers.acme]\napi_key = "settings"\n',
}
"""Every place with what it has, in the order in which they are looked at."""

Found = Callable[..., ProviderSettings]


def write(home: Path, place: str, text: str, mode: int = 0o600) -> Path:
    file = home / place.removeprefix("~/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def settings(home: Path, **environ: str) -> ProviderSettings:
    return load({}, {"HOME": str(home), **environ}, home).provider("acme")


def ours(home: Path) -> CredentialFile:
    config: Config = load({}, {}, home)
    return config.credential_file


def three_lines(error: GpucloudError) -> tuple[str, str, str]:
    assert error.message and error.why and error.hint
    return error.message, error.why, error.hint


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_first_place_that_has_one_wins_and_is_told(home: Path, first: int) -> None:
    environ: dict[str, str] = {}
    for place in list(PLACES)[first:]:
        has = PLACES[place]
        if isinstance(has, str):
            write(home, place, has)
        else:
            environ |= has
    place = list(PLACES)[first]
    found = settings(home, **environ)
    assert found.credential_source(KEY) == place
    assert found.credential(KEY) in str(PLACES[place])


def test_without_any_every_place_is_named_and_what_to_do(home: Path) -> None:
    found = settings(home)
    assert found.credential_source(KEY) is None
    with pytest.raises(AuthError) as caught:
        found.credential(KEY)
    message, why, hint = three_lines(caught.value)
    assert message == "there is no api_key for acme"
    assert all(place in why for place in PLACES)
    assert hint == "gpucloud login acme, with one from https://acme.example/keys"
    assert caught.value.provider == "acme"


@pytest.mark.parametrize("blank", ["", " \n"])
def test_what_is_blank_is_not_there(home: Path, blank: str) -> None:
    for place, has in PLACES.items():
        if isinstance(has, str) and place.endswith("key"):
            write(home, place, blank)
    write(home, "~/.config/gpucloud/credentials.toml", f"[acme]\napi_key = {json.dumps(blank)}\n")
    write(home, "~/.config/gpucloud/config.toml", f"[providers.acme]\napi_key = {json.dumps(blank)}\n")
    assert settings(home, ACME_TOKEN=blank).credential_source(KEY) is None


def test_a_key_is_read_without_the_spaces_around_it(home: Path) -> None:
    assert settings(home, ACME_TOKEN=" abcdef\n").credential(KEY) == "abcdef"


def test_nothing_is_read_before_somebody_asks(home: Path) -> None:
    write(home, "~/.config/gpucloud/credentials.toml", "not TOML", 0o644)
    found = settings(home, ACME_API_KEY="from-the-environment")
    # Nor is what stands behind the place that has one.
    assert found.credential(KEY) == "from-the-environment"
    with pytest.raises(ConfigError):
        found.credential(OTHER)


@pytest.mark.parametrize(
    ("format", "key", "text"),
    [
        (FileFormat.TOML, "api_key", 'api_key = "s3cret"'),
        (FileFormat.TOML, "a.b.c", '[a.b]\nc = "s3cret"'),
        (FileFormat.JSON, "api_key", '{"api_key": "s3cret"}'),
        (FileFormat.JSON, "auth.api_key", '{"auth": {"api_key": "s3cret"}}'),
        (FileFormat.INI, "default.api_key", "[default]\napi_key = s3cret\n"),
        (FileFormat.INI, "profile my.own.key", "[profile my.own]\nkey: s3cret\n"),
        (FileFormat.INI, "api_key", "api_key = s3cret\n[more]\nx = %(y\n"),
        (FileFormat.PLAIN, "", "s3cret\n"),
    ],
)
def test_the_file_of_a_vendor_s_tool_is_understood(
    home: Path, format: FileFormat, key: str, text: str
) -> None:
    wanted = Credential("api_key", files=(VendorFile("~/.acme", format, key),))
    write(home, "~/.acme", text, 0o644)
    assert settings(home).credential(wanted) == "s3cret"
    assert settings(home).credential_source(wanted) == "~/.acme"


@pytest.mark.parametrize("format", FileFormat)
@pytest.mark.parametrize("content", [b"\xff\xfe", b"[", b"[]", b"{}", b'"text"', b"[" * 100_000, b"", None])
def test_one_that_makes_no_sense_is_passed_over(
    home: Path, format: FileFormat, content: bytes | None
) -> None:
    wanted = Credential("api_key", files=(VendorFile("~/.acme", format, "default.api_key"),))
    if content is None:
        (home / ".acme").mkdir()
    else:
        (home / ".acme").write_bytes(content)
    told = settings(home).credential_source(wanted)
    assert told == ("~/.acme" if format is FileFormat.PLAIN and content and content != b"\xff\xfe" else None)


def test_files_of_others_are_looked_for_where_the_person_has_moved_them(home: Path) -> None:
    moved = write(home, "~/elsewhere/acme/key", "moved-key")
    found = settings(home, XDG_CONFIG_HOME=str(moved.parents[1]))
    assert (found.credential(KEY), found.credential_source(KEY)) == ("moved-key", "~/elsewhere/acme/key")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o660, 0o610])
def test_our_file_is_refused_when_others_may_use_it(home: Path, mode: int) -> None:
    place = "~/.config/gpucloud/credentials.toml"
    file = write(home, place, '[acme]\napi_key = "our-file"\n', mode)
    with pytest.raises(ConfigError) as caught:
        settings(home).credential_source(KEY)
    assert three_lines(caught.value)[2] == f"chmod 600 {place}"
    with pytest.raises(ConfigError):
        ours(home).put("acme", {"api_key": "another"})
    assert "our-file" in file.read_text()


@pytest.mark.parametrize(
    "text", ["[acme", 'api_key = "planted-secret"', "[acme]\napi_key = 5 # planted-secret", "\udcff[acme]"]
)
def test_our_file_is_refused_when_it_is_not_what_it_must_be_and_is_not_quoted(home: Path, text: str) -> None:
    file = write(home, "~/.config/gpucloud/credentials.toml", "")
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        settings(home).credential(KEY)
    assert "planted-secret" not in " ".join(three_lines(caught.value))


@pytest.mark.parametrize(
    "mine", [True, pytest.param(False, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))]
)
def test_a_link_is_followed_only_when_it_is_the_person_s(home: Path, mine: bool) -> None:
    real = write(home, "~/dotfiles/keys.toml", '[acme]\napi_key = "behind-a-link"\n')
    link = ours(home).path
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    if mine:
        assert settings(home).credential(KEY) == "behind-a-link"
        ours(home).put("acme", {"api_key": "another"})
        assert link.is_symlink()
        assert "another" in real.read_text()
    else:
        os.chown(link, 1, 1, follow_symlinks=False)
        with pytest.raises(ConfigError, match="cannot be used"):
            settings(home).credential(KEY)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_is_stored_is_found_whatever_it_is_made_of(
    tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    file = CredentialFile(tmp_path_factory.mktemp("keys") / "credentials.toml")
    file.put("acme", {"api_key": key})
    assert file.get("acme", "api_key") == key.strip()


def test_storing_keeps_the_rest_and_leaves_a_file_for_the_owner_alone(home: Path) -> None:
    file = ours(home)
    write(home, "~/.config/gpucloud/credentials.toml", '# mine\n[other]\ntoken = "stays" # too\n')
    file.put("acme", {"api_key": "one", "client_id": "two"})
    file.put("acme", {"api_key": "three"})
    assert [file.get("acme", "api_key"), file.get("acme", "client_id")] == ["three", "two"]
    assert file.get("other", "token") == "stays"
    assert file.path.read_text().startswith('# mine\n[other]\ntoken = "stays" # too\n')
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.remove("acme") == ["api_key", "client_id"]
    assert file.remove("acme") == []
    assert [file.get("acme", "api_key"), file.get("other", "token")] == [None, "stays"]
    assert [
        path.name for path in file.path.parent.iterdir() if "toml." in path.name.replace(".lock", "")
    ] == []


def test_removing_what_is_not_there_makes_no_file(home: Path) -> None:
    assert ours(home).remove("acme") == []
    assert not ours(home).path.parent.exists()


def test_those_who_store_at_the_same_time_lose_nothing(home: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom gpucloud.credentials import CredentialFile\n"
        "import tomlkit, filelock\nprint('ready', flush=True)\ninput()\n"
        "CredentialFile(Path(sys.argv[1])).put(sys.argv[2], {'api_key': 'of-' + sys.argv[2]})\n"
    )
    names = [f"vendor{number}" for number in range(6)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(ours(home).path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert {name: ours(home).get(name, "api_key") for name in names} == {name: f"of-{name}" for name in names}


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o600, False)])
def test_a_key_in_settings_that_others_can_read_is_warned_about(
    home: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    place = "~/.config/gpucloud/config.toml"
    write(home, place, '[providers.acme]\napi_key = "settings"\n', mode)
    with caplog.at_level(logging.WARNING):
        assert settings(home).credential(KEY) == "settings"
    assert (f"chmod 600 {place}" in caplog.text) == warned
    assert "settings" not in caplog.text


def test_what_was_handed_out_is_hidden_from_then_on(home: Path) -> None:
    secret = 'quite "secret" \\ value'
    told = json.dumps({"seen": secret})
    assert scrub(told) == told
    settings(home, ACME_TOKEN=secret).credential(KEY)
    assert scrub(told) == json.dumps({"seen": HIDDEN})
    assert scrub(f"no {secret}, {secret!r}") == f"no {HIDDEN}, '{HIDDEN}'"


def test_no_description_of_the_settings_has_a_secret(home: Path) -> None:
    write(home, "~/.config/gpucloud/config.toml", '[providers.acme]\napi_key = "settings-key"\n')
    found = settings(home, ACME_TOKEN="variable-key")
    assert "settings-key" not in repr(found) and "variable-key" not in repr(found)
    assert "settings-key" not in repr(found.lookup) and "variable-key" not in repr(found.lookup)


def test_several_secrets_are_told_of_together(home: Path) -> None:
    write(home, "~/.config/gpucloud/credentials.toml", '[acme]\napi_key = "our-file"\n')
    both = source_of((KEY, OTHER), settings(home))
    assert both == f"~/.config/gpucloud/credentials.toml, {MISSING}"
    assert source_of((KEY, KEY), settings(home)) == "~/.config/gpucloud/credentials.toml"
    assert source_of((), settings(home)) is None


def test_without_a_person_s_places_the_settings_of_an_adapter_are_all_there_is(tmp_path: Path) -> None:
    given = ProviderSettings("acme", tmp_path, table={"api_key": "given"})
    assert (given.credential(KEY), given.credential_source(KEY)) == ("given", "settings")
    with pytest.raises(AuthError) as caught:
        given.credential(OTHER)
    assert "gpucloud login acme" in three_lines(caught.value)


def test_a_path_outside_of_home_is_shown_whole(home: Path, tmp_path: Path) -> None:
    assert shown(home / "a" / "b") == "~/a/b"
    assert shown(tmp_path / "c") == str(tmp_path / "c")
