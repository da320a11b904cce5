"""Settings: which source wins, where each value comes from, and what a wrong file is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.config import OPTIONS, PROJECT_FILE, Config, load
from gpucloud.errors import ConfigError

NAME = "launch.max_duration"
VARIABLE = "GPUCLOUD_LAUNCH_MAX_DURATION"

Load = Callable[..., Config]


@pytest.fixture
def user_file(home: Path) -> Path:
    file = home / ".config" / "gpucloud" / "config.toml"
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def project(home: Path) -> Path:
    folder = home / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def read(user_file: Path, project: Path) -> Load:
    """Write the files that are given, then load."""

    def read(
        *,
        user: str | None = None,
        shared: str | None = None,
        environ: dict[str, str] | None = None,
        flags: dict[str, str] | None = None,
        folder: Path = project,
    ) -> Config:
        if user is not None:
            user_file.write_text(user)
        if shared is not None:
            (project / PROJECT_FILE).write_text(shared)
        return load(flags or {}, environ or {}, folder)

    return read


def toml(value: str) -> str:
    return f'[launch]\nmax_duration = "{value}"\n'


def refused(read: Load, **sources: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(**sources)
    error = caught.value
    assert error.message and error.why and error.hint
    return error


def test_without_any_source_every_setting_has_its_default(read: Load) -> None:
    config = read()
    assert {name: setting.text for name, setting in config.settings.items()} == {
        name: option.default for name, option in OPTIONS.items()
    }
    assert {setting.origin for setting in config.settings.values()} == {"default"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_default_can_be_read(read: Load, name: str) -> None:
    nothing = OPTIONS[name].default in {"none", "auto"} and name != "ssh.client"
    assert (read().get(name) is None) == nothing


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("launch.price_tolerance", "2.5%", Decimal("0.025")),
        ("launch.idle", "30m", timedelta(minutes=30)),
        ("ssh.persist", "0", timedelta()),
        ("ssh.client", " builtin ", "builtin"),
        ("budget.day", "$20", Decimal(20)),
        ("budget.projects", "train=100, eval = $20", {"train": Decimal(100), "eval": Decimal(20)}),
    ],
)
def test_limits_are_read_as_people_write_them(read: Load, name: str, text: str, value: object) -> None:
    assert read(flags={name: text}).get(name) == value


@pytest.mark.parametrize(
    ("name", "text"), [("launch.price_tolerance", "5"), ("budget.day", "-1"), ("budget.projects", "100")]
)
def test_a_limit_that_makes_no_sense_is_told_of(read: Load, name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(flags={name: text}).get(name)
    assert name in caught.value.message


def test_a_project_file_must_not_say_how_much_may_be_spent(read: Load) -> None:
    assert "budget.day" in refused(read, shared="[budget]\nday = 1000\n").message


@pytest.mark.parametrize(
    ("sources", "winner"),
    [
        ({"flags", "environ", "shared", "user"}, "flags"),
        ({"environ", "shared", "user"}, "environ"),
        ({"shared", "user"}, "shared"),
        ({"user"}, "user"),
        ({"flags", "user"}, "flags"),
        ({"environ", "user"}, "environ"),
        ({"flags", "shared"}, "flags"),
    ],
)
def test_the_nearest_source_wins_and_is_the_origin(
    read: Load, user_file: Path, project: Path, sources: set[str], winner: str
) -> None:
    given = {
        "flags": ({NAME: "1h"}, "1h", "flag"),
        "environ": ({VARIABLE: "2h"}, "2h", VARIABLE),
        "shared": (toml("3h"), "3h", str(project / PROJECT_FILE)),
        "user": (toml("4h"), "4h", str(user_file)),
    }
    setting = read(**{source: given[source][0] for source in sources}).settings[NAME]
    assert (setting.text, setting.origin) == given[winner][1:]


def test_a_source_decides_only_over_what_it_sets(read: Load) -> None:
    config = read(
        user='[launch]\nmax_duration = "4h"\nend_timeout = "1m"\n[offers]\nproviders = ["sim"]\n',
        shared='[launch]\nmax_duration = "3h"\n',
        environ={"GPUCLOUD_OFFERS_TIMEOUT": "2s"},
    )
    assert config.duration(NAME) == timedelta(hours=3)
    assert config.duration("launch.end_timeout") == timedelta(minutes=1)
    assert config.duration("offers.timeout") == timedelta(seconds=2)
    assert config.get("offers.providers") == ("sim",)
    assert config.duration("ssh.connect_timeout") == timedelta(seconds=15)


def test_dotted_keys_and_tables_are_the_same(read: Load) -> None:
    assert read(user='launch.max_duration = "5h"\n').duration(NAME) == timedelta(hours=5)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["sim", "ssh"]', ("sim", "ssh")),
        ('"sim, ssh,"', ("sim", "ssh")),
        ('""', ()),
        ("[]", ()),
        ('"sim:boot=5s,stockout=2, ssh"', ("sim:boot=5s,stockout=2", "ssh")),
        ('["sim:boot=5s,interrupt@40s", "local"]', ("sim:boot=5s,interrupt@40s", "local")),
    ],
)
def test_a_list_of_names_is_a_toml_list_or_separated_by_commas(
    read: Load, text: str, names: tuple[str, ...]
) -> None:
    assert read(user=f"[offers]\nproviders = {text}\n").get("offers.providers") == names


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_the_project_file_is_found_in_the_folders_above(read: Load, project: Path, depth: int) -> None:
    below = project.joinpath(*map(str, range(depth)))
    below.mkdir(parents=True, exist_ok=True)
    setting = read(shared=toml("3h"), folder=below).settings[NAME]
    assert setting.origin == str(project / PROJECT_FILE)


def test_of_two_project_files_the_nearer_one_counts_alone(read: Load, project: Path) -> None:
    below = project / "below"
    below.mkdir()
    (below / PROJECT_FILE).write_text('[offers]\ntimeout = "1s"\n')
    config = read(shared=toml("3h"), folder=below)
    assert config.settings[NAME].origin == "default"
    assert config.duration("offers.timeout") == timedelta(seconds=1)


def test_a_folder_with_the_name_of_the_project_file_is_none(read: Load, project: Path) -> None:
    (project / PROJECT_FILE).mkdir()
    assert read().settings[NAME].origin == "default"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ('[launch]\nmax_durration = "1h"', "launch.max_duration"),
        ('[lunch]\nmax_duration = "1h"', "launch.max_duration"),
        ('[offers]\nprovider = "sim"', "offers.providers"),
        ('offers_timeout = "1s"', "offers.timeout"),
    ],
)
@pytest.mark.parametrize("source", ["user", "shared"])
def test_an_unknown_setting_is_refused_with_its_file_and_what_was_meant(
    read: Load, user_file: Path, project: Path, source: str, key: str, meant: str
) -> None:
    error = refused(read, **{source: key})
    assert str(user_file if source == "user" else project / PROJECT_FILE) in error.message
    assert error.hint == f"did you mean {meant!r}?"
    assert NAME in error.why


def test_a_setting_like_none_there_is_gets_no_guess(read: Load) -> None:
    assert refused(read, user="zzz = 1").hint == "gpucloud config show"


@pytest.mark.parametrize(
    "document",
    ["launch = 5", 'launch = "24h"', "launch = [1, 2]", '[[launch]]\nmax_duration = "1h"', "launch = true"],
)
def test_a_section_must_be_a_table(read: Load, document: str) -> None:
    assert "unknown setting 'launch'" in refused(read, user=document).message


@pytest.mark.parametrize("name", OPTIONS)
def test_a_setting_cannot_be_a_table(read: Load, name: str) -> None:
    assert f"{name}.deeper" in refused(read, user=f"[{name}]\ndeeper = 1").message


@pytest.mark.parametrize(
    "value", ["24", "true", "1.5", "2026-01-02", "'a day'", "''", "['1h', '2h']", "'nan'"]
)
def test_a_wrong_value_names_its_setting_and_its_origin(read: Load, user_file: Path, value: str) -> None:
    config = read(user=f"[launch]\nmax_duration = {value}\n")
    with pytest.raises(ConfigError) as caught:
        config.duration(NAME)
    assert NAME in caught.value.message
    assert str(user_file) in caught.value.why
    assert caught.value.hint == "gpucloud config show --origin"


@pytest.mark.parametrize(
    ("sources", "origin"), [({"environ": {VARIABLE: "30"}}, VARIABLE), ({"flags": {NAME: "30"}}, "flag")]
)
def test_a_wrong_value_from_outside_the_files_names_its_origin_too(
    read: Load, sources: dict[str, Any], origin: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**sources).get(NAME)
    assert caught.value.why.startswith(f"{origin}: ")


@pytest.mark.parametrize(("text", "factor"), [("1", "1"), ("2.5", "2.5"), (" 10 ", "10")])
def test_a_factor_is_a_plain_number_of_one_or_more(read: Load, text: str, factor: str) -> None:
    assert read(flags={"launch.price_factor": text}).get("launch.price_factor") == Decimal(factor)


@pytest.mark.parametrize(
    "text", ["0", "0.99", "-1", "nan", "inf", "1e3", "1e999999", "\u0663", "3x", "", "1_0"]
)
def test_another_text_is_no_factor(read: Load, text: str) -> None:
    with pytest.raises(ConfigError, match=r"launch\.price_factor"):
        read(flags={"launch.price_factor": text}).get("launch.price_factor")


def test_a_wrong_value_that_a_nearer_source_overrides_does_no_harm(read: Load) -> None:
    assert read(user=toml("nonsense"), environ={VARIABLE: "1h"}).duration(NAME) == timedelta(hours=1)


@pytest.mark.parametrize(
    "content",
    [
        b"[launch",
        b"= 1",
        b'[launch]\na = "x"\na = "y"',
        b"\xff\xfe\x00",
        b'x = "\xc3"',
        b"\x00",
        b"a = 1\x07",
    ],
)
@pytest.mark.parametrize("source", ["user", "project"])
def test_a_file_that_is_not_toml_is_named_with_what_is_wrong(
    read: Load, user_file: Path, project: Path, source: str, content: bytes
) -> None:
    file = user_file if source == "user" else project / PROJECT_FILE
    file.write_bytes(content)
    error = refused(read)
    assert error.message == f"{file} cannot be read"
    assert error.hint.endswith(str(file))


def test_a_user_file_that_cannot_be_opened_is_named(read: Load, user_file: Path) -> None:
    user_file.mkdir()
    assert refused(read).message == f"{user_file} cannot be read"


def test_a_config_folder_that_is_a_file_is_told_of(read: Load, user_file: Path) -> None:
    user_file.parent.rmdir()
    user_file.parent.write_text("in the way")
    assert refused(read).message == f"{user_file} cannot be read"


def test_an_empty_file_sets_nothing(read: Load) -> None:
    assert {setting.origin for setting in read(user="", shared="").settings.values()} == {"default"}


@pytest.mark.parametrize(
    "table", ["[providers.ssh.hosts.box]\naddress = '6.6.6.6'", "[providers.sim]\na = 1"]
)
def test_a_project_file_must_not_say_where_code_and_secrets_go(
    read: Load, user_file: Path, project: Path, table: str
) -> None:
    error = refused(read, shared=table)
    assert str(project / PROJECT_FILE) in error.message
    assert str(user_file) in error.hint


@pytest.mark.parametrize(
    "value", ["3", "'ssh'", "['ssh']", "{ssh = 1}", "{ssh = {}, sim = 'x'}", "[{ssh = 1}]"]
)
@pytest.mark.parametrize("source", ["user", "shared"])
def test_providers_must_hold_tables(read: Load, source: str, value: str) -> None:
    assert "[providers] must hold one table" in refused(read, **{source: f"providers = {value}"}).message


def test_an_adapter_sees_its_own_table_and_folder_and_nobody_elses(read: Load, home: Path) -> None:
    config = read(user="[providers.sim]\nscript = 'seed=7'\n[providers.ssh.hosts.box]\naddress = 'a'\n")
    sim = config.provider("sim", "stockout=1")
    assert (sim.name, sim.table, sim.script) == ("sim", {"script": "seed=7"}, "stockout=1")
    assert sim.state_dir == config.data_dir / "providers" / "sim"
    assert sim.state_dir.is_relative_to(home)
    assert config.provider("ssh").table == {"hosts": {"box": {"address": "a"}}}
    assert config.provider("local").table == {}


def test_a_variable_overrides_a_key_of_a_providers_table(read: Load) -> None:
    config = read(
        user="[providers.sim]\nscript = 'seed=7'\nother = 1\n",
        environ={"GPUCLOUD_SIM_SCRIPT": "seed=8", "GPUCLOUD_SIM_API_KEY": "k", "SIM_SCRIPT": "no"},
    )
    assert config.provider("sim").table == {"script": "seed=8", "other": 1, "api_key": "k"}
    assert config.provider("ssh").table == {}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("['one', ' two ']", ("one", "two")),
        ("'one, two,'", ("one", "two")),
        ("''", ()),
        ("[]", ()),
    ],
)
def test_names_for_a_provider_are_a_list_or_a_text_with_commas(
    read: Load, value: str, names: tuple[str, ...]
) -> None:
    settings = read(user=f"[providers.sim]\nregions = {value}\n").provider("sim")
    assert settings.names("regions") == names
    assert settings.names("others") == ()


@pytest.mark.parametrize("value", ["7", "[7]", "{a = 1}"])
def test_what_is_no_list_of_names_is_told_of(read: Load, value: str) -> None:
    settings = read(user=f"[providers.sim]\nregions = {value}\n").provider("sim")
    with pytest.raises(ConfigError) as caught:
        settings.names("regions")
    assert "providers.sim.regions" in caught.value.message


def test_a_variable_of_the_core_is_no_key_of_the_provider_of_that_name(read: Load) -> None:
    config = read(environ={"GPUCLOUD_SSH_CONNECT_TIMEOUT": "5s"})
    assert config.duration("ssh.connect_timeout") == timedelta(seconds=5)
    assert config.provider("ssh").table == {}


def test_the_xdg_folders_are_obeyed(read: Load, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "elsewhere"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
    (home / "settings" / "gpucloud").mkdir(parents=True)
    (home / "settings" / "gpucloud" / "config.toml").write_text(toml("7h"))
    config = read(user=toml("4h"))
    assert config.duration(NAME) == timedelta(hours=7)
    assert config.data_dir == home / "elsewhere" / "gpucloud"


def test_loading_makes_no_file_and_no_folder(read: Load, home: Path) -> None:
    before = sorted(home.rglob("*"))
    read()
    assert sorted(home.rglob("*")) == before


def test_the_environment_is_not_shown_with_the_settings(read: Load) -> None:
    assert "hunter22" not in repr(read(environ={"GPUCLOUD_ACME_PASSWORD": "hunter22"}))
