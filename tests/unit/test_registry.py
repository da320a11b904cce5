"""Names to adapters: ours, those of installed packages, and broken ones of either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gpucloud import registry
from gpucloud.config import load as load_config
from gpucloud.errors import ConfigError, NothingMatched
from gpucloud.provider import Provider, PublicCatalog, SpotHistory
from gpucloud.registry import BUILTIN, ENTRY_POINT_GROUP, PRICES_ONLY, SIGNS, Registry
from gpucloud.rest import RestProvider

OURS = (*BUILTIN, *PRICES_ONLY)

WORKING = "from gpucloud_local import Local\n\n\nclass Acme(Local):\n    name = 'acme'\n"

NAMES = "from gpucloud import registry\nanswer = registry.names()"
LOADED = "from gpucloud import registry\nanswer = sorted(registry.load_all())"
CONFIGURED = (
    "import os\nfrom pathlib import Path\nfrom gpucloud import config, registry\n"
    "found = registry.Registry(config.load({}, os.environ, Path('/')))\n"
    "answer = [provider.name for provider in found.configured()]"
)
KNOWN = (
    "import os\nfrom pathlib import Path\nfrom gpucloud import config, registry\n"
    "found = registry.Registry(config.load({}, os.environ, Path('/')))\n"
    "answer = {name: set_up for name, (_, set_up) in found.known().items()}"
)
EXPLAINED = (
    "from gpucloud import errors, registry\n"
    "try:\n    registry.load('acme')\n"
    "except errors.GpucloudError as error:\n    answer = [error.code, error.message, error.why, error.hint]"
)


@dataclass(frozen=True, slots=True)
class Site:
    """A folder of installed packages, and Python with it."""

    folder: Path
    home: Path

    def install(self, package: str, entry_points: str | bytes, source: str | None = None) -> None:
        """Put a distribution there, as pip leaves it, with a module of its name."""
        info = self.folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        content = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
        (info / "entry_points.txt").write_bytes(content)
        if source is not None:
            (self.folder / f"{package}.py").write_text(source)

    def plug_in(self, source: str, target: str = "acme:Acme", name: str = "acme") -> None:
        """Install the package ``acme``, whose adapter is ``source``."""
        self.install("acme", f"[{ENTRY_POINT_GROUP}]\n{name} = {target}\n", source)

    def ask(self, program: str) -> tuple[Any, str]:
        """What ``program`` leaves in ``answer``, and what was written to stderr."""
        paths = [str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"{program}\nimport json\nprint(json.dumps(answer))"],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr


@pytest.fixture
def site(tmp_path: Path, home: Path) -> Site:
    return Site(tmp_path / "site", home)


@pytest.fixture
def providers(home: Path) -> Callable[..., Registry]:
    """The providers of a command with these settings."""

    def build(environ: dict[str, str] | None = None) -> Registry:
        return Registry(load_config({}, environ or {}, home))

    return build


def test_the_built_in_table_is_sorted_and_follows_the_name_rule() -> None:
    assert list(BUILTIN) == sorted(BUILTIN)
    assert list(PRICES_ONLY) == sorted(PRICES_ONLY)
    for name, target in {**BUILTIN, **PRICES_ONLY}.items():
        assert target == f"gpucloud_{name}:{name.capitalize()}"


@pytest.mark.parametrize("name", BUILTIN)
def test_every_built_in_adapter_loads_under_its_name(name: str) -> None:
    adapter = registry.load(name)
    assert issubclass(adapter, Provider)
    assert adapter.name == name


@pytest.mark.parametrize("name", PRICES_ONLY)
def test_an_adapter_that_only_publishes_is_no_provider(name: str) -> None:
    adapter = registry.load(name)
    assert issubclass(adapter, PublicCatalog) or issubclass(adapter, SpotHistory)
    assert not issubclass(adapter, Provider)
    assert adapter.name == name


def test_all_adapters_are_told_sorted_by_name() -> None:
    assert set(OURS) <= set(registry.names())
    assert list(registry.names()) == sorted(registry.names())
    assert list(registry.load_all()) == sorted(registry.load_all())


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("loca", "did you mean 'local'?"), ("shs", "did you mean 'ssh'?"), ("", ""), ("zzz", "")],
)
def test_an_unknown_name_is_told_with_those_that_are_known(typed: str, hint: str) -> None:
    with pytest.raises(NothingMatched) as caught:
        registry.load(typed)
    assert repr(typed) in caught.value.message
    assert all(name in caught.value.why for name in BUILTIN)
    assert caught.value.hint == (hint or "gpucloud providers")


@pytest.mark.parametrize("name", ["local", "sim", "ssh"])
def test_loading_an_adapter_imports_nothing_heavy(site: Site, name: str) -> None:
    heavy = (
        "asyncssh",
        "paramiko",
        "httpx",
        "pydantic",
        "cryptography",
        "rich",
        "ruamel",
        "typer",
        "filelock",
    )
    program = (
        "import sys\nfrom gpucloud import registry\n"
        f"registry.load({name!r})\nanswer = [name for name in {heavy} if name in sys.modules]"
    )
    assert site.ask(program)[0] == []


def test_telling_the_names_imports_no_adapter(site: Site) -> None:
    site.plug_in("raise RuntimeError('imported')")
    program = f"{NAMES}\nimport sys\nanswer = [name for name in sys.modules if name.startswith('gpucloud_')]"
    assert site.ask(program) == ([], "")


@pytest.mark.parametrize("target", ["acme:Acme", "acme:Acme [extra]", "acme : Acme"])
def test_the_adapter_of_an_installed_package_is_found(site: Site, target: str) -> None:
    site.plug_in(WORKING, target)
    assert site.ask(NAMES) == (sorted([*OURS, "acme"]), "")
    assert site.ask(LOADED) == (sorted([*OURS, "acme"]), "")
    assert "acme" in site.ask(CONFIGURED)[0]


def test_an_installed_package_cannot_take_the_place_of_a_built_in_adapter(site: Site) -> None:
    site.plug_in(WORKING.replace("'acme'", "'local'"), name="local")
    program = "from gpucloud import registry\nanswer = registry.load('local').__module__"
    assert site.ask(program)[0].startswith("gpucloud_local")


BROKEN = {
    "a module that is not there": (None, "acme:Acme", "ModuleNotFoundError"),
    "an import that fails": ("import nowhere_to_be_found", "acme:Acme", "nowhere_to_be_found"),
    "a syntax error": ("class Acme(:", "acme:Acme", "SyntaxError"),
    "a module that ends the process": ("raise SystemExit(0)", "acme:Acme", "SystemExit"),
    "a class that is not there": ("", "acme:Acme", "AttributeError"),
    "no class at all": (WORKING, "acme", "AttributeError"),
    "no module at all": (WORKING, ":Acme", "ValueError"),
    "nothing at all": (WORKING, "", "ValueError"),
    "no class but a function": ("def Acme(): pass", "acme:Acme", "is not an Adapter"),
    "a class of another kind": ("class Acme: name = 'acme'", "acme:Acme", "is not an Adapter"),
    "a class of another name": (WORKING.replace("'acme'", "'other'"), "acme:Acme", "named 'acme'"),
    "a class without a name": (WORKING.replace("    name = 'acme'", "    pass"), "acme:Acme", "named 'acme'"),
    "verbs that are missing": (
        "from gpucloud.provider import Provider\nclass Acme(Provider):\n    name = 'acme'\n",
        "acme:Acme",
        "lacks configured, get, instances, launch, offers, terminate",
    ),
}


@pytest.mark.parametrize(("source", "target", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_warns_and_is_skipped_and_an_error_when_it_is_asked_for(
    site: Site, source: str | None, target: str, why: str
) -> None:
    site.plug_in(source or "", target)
    if source is None:
        (site.folder / "acme.py").unlink()
    loaded, warning = site.ask(LOADED)
    assert loaded == sorted(OURS)
    assert "'acme'" in warning and why in warning and "Traceback" not in warning
    code, message, reason, hint = site.ask(EXPLAINED)[0]
    assert (code, message) == ("config", "the adapter of provider 'acme' cannot be used")
    assert why in reason
    assert "package" in hint


@pytest.mark.parametrize(
    "member",
    [
        "@classmethod\n    def configured(cls, settings):\n        raise KeyError('its bug')",
        "def __init__(self, settings):\n        raise KeyError('its bug')",
    ],
)
def test_a_plugin_that_fails_before_it_is_asked_anything_hides_no_other(site: Site, member: str) -> None:
    site.plug_in(f"{WORKING}\n    {member}\n")
    configured, warning = site.ask(CONFIGURED)
    assert configured == ["local"]
    assert "'acme'" in warning and "its bug" in warning


@pytest.mark.parametrize(
    "content",
    [
        f"[{ENTRY_POINT_GROUP}]\nthis is no entry point\n",
        "[console_scripts]\nthis is no entry point\n",
        b"\xff\xfe[gpucloud",
    ],
)
def test_a_package_with_broken_entry_points_hides_no_other(site: Site, content: str | bytes) -> None:
    site.install("broken", content)
    site.plug_in(WORKING)
    names, warning = site.ask(NAMES)
    assert names == sorted([*OURS, "acme"])
    assert "broken" in warning


def test_of_two_packages_with_one_name_the_first_on_the_path_counts(site: Site, tmp_path: Path) -> None:
    site.plug_in(WORKING)
    second = Site(tmp_path / "second", site.home)
    second.install("rival", f"[{ENTRY_POINT_GROUP}]\nacme = rival:Acme\n", WORKING)
    program = f"import sys\nsys.path.append({str(second.folder)!r})\n"
    program += "from gpucloud import registry\nanswer = registry.load('acme').__module__"
    assert site.ask(program) == ("acme", "")


def test_a_provider_is_built_once_for_a_command(providers: Callable[..., Registry]) -> None:
    found = providers()
    assert found.get("local") is found.get("local")
    assert found.get("local").name == "local"


def test_what_follows_the_colon_is_the_script_of_the_provider(providers: Callable[..., Registry]) -> None:
    found = providers()
    scripted = found.get("sim:stockout=2,seed=7")
    assert scripted.settings.script == "stockout=2,seed=7"
    assert found.get("sim") is scripted
    assert found.get("sim:stockout=2,seed=7") is scripted
    assert found.get("sim:seed=8").settings.script == "seed=8"


def test_a_provider_has_its_own_settings(providers: Callable[..., Registry]) -> None:
    found = providers({"GPUCLOUD_SIM_SCRIPT": "seed=7"})
    assert found.get("sim").settings.table == {"script": "seed=7"}
    assert found.get("local").settings.table == {}
    assert found.get("local").settings.state_dir.name == "local"


@pytest.mark.parametrize("reference", ["locla", "", ":seed=7", "locla:seed=7"])
def test_a_reference_to_no_provider_is_refused(providers: Callable[..., Registry], reference: str) -> None:
    with pytest.raises(NothingMatched):
        providers().get(reference)


def test_the_named_providers_are_selected_in_their_order(providers: Callable[..., Registry]) -> None:
    assert [p.name for p in providers().select(["sim:seed=7", "local"])] == ["sim", "local"]


def test_without_names_the_setting_selects(providers: Callable[..., Registry]) -> None:
    found = providers({"GPUCLOUD_OFFERS_PROVIDERS": "ssh,local"})
    assert [p.name for p in found.select([])] == ["ssh", "local"]
    assert [p.name for p in found.select(["sim"])] == ["sim"]


def test_without_names_and_setting_all_that_are_set_up_are_selected(
    providers: Callable[..., Registry],
) -> None:
    assert [p.name for p in providers().select([])] == ["local"]
    assert [p.name for p in providers({"GPUCLOUD_SIM_SCRIPT": "seed=7"}).select([])] == ["local", "sim"]


def test_a_provider_that_was_named_in_this_command_counts_as_set_up(
    providers: Callable[..., Registry],
) -> None:
    found = providers()
    scripted = found.get("sim:seed=7")
    assert found.configured() == [found.get("local"), scripted]


def test_whether_a_provider_is_set_up_is_told_without_building_it(
    providers: Callable[..., Registry],
) -> None:
    assert providers().is_set_up("local")
    assert not providers().is_set_up("sim")
    assert providers({"GPUCLOUD_SIM_SCRIPT": "seed=7"}).is_set_up("sim")


def test_one_that_publishes_its_prices_is_asked_once_there_is_an_account(
    providers: Callable[..., Registry],
) -> None:
    login = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert [providers().asks(name) for name in ("aws", "verda", "sim:seed=7", "nobody")] == [
        False,
        False,
        True,
        False,
    ]
    assert providers(login).asks("aws")


def test_a_plugin_that_cannot_say_whether_it_is_set_up_hides_no_other(site: Site) -> None:
    site.plug_in(WORKING + "    @classmethod\n    def configured(cls, settings):\n        return 1 / 0\n")
    answer, told = site.ask(KNOWN)
    assert answer == {name: name == "local" for name in OURS}
    assert "'acme' cannot be used (ZeroDivisionError: division by zero); it is skipped" in told


def test_a_wrong_setting_of_providers_is_refused(providers: Callable[..., Registry]) -> None:
    with pytest.raises(NothingMatched, match="'locla'"):
        providers({"GPUCLOUD_OFFERS_PROVIDERS": "locla"}).select([])


def test_a_broken_adapter_of_ours_is_an_error_and_not_skipped(
    monkeypatch: pytest.MonkeyPatch, providers: Callable[..., Registry]
) -> None:
    monkeypatch.setattr(registry, "BUILTIN", {"local": "gpucloud_local:Nothing"})
    with pytest.raises(ConfigError, match="'local' cannot be used"):
        registry.load_all()
    with pytest.raises(ConfigError, match="'local' cannot be used"):
        providers().configured()


@pytest.mark.parametrize("name", [name for name in BUILTIN if issubclass(registry.load(name), RestProvider)])
def test_the_signs_of_a_provider_are_the_credentials_that_it_declares(name: str) -> None:
    adapter = registry.load(name)
    variables = {variable for each in adapter.credentials for variable in each.variables}
    files = {file.path for each in adapter.credentials for file in each.files}
    assert set(SIGNS[name]) == variables | files


def test_signs_are_of_no_others() -> None:
    assert all(issubclass(registry.load(name), RestProvider) for name in SIGNS)


@pytest.mark.parametrize("place", ["theirs", "ours", "table", "file", "kept"])
def test_each_place_of_a_key_is_a_sign_of_it(home: Path, place: str) -> None:
    environ = {"HOME": str(home)}
    config = load_config({}, environ, home)
    assert not Registry(config).is_set_up("runpod")
    if place == "theirs":
        environ["RUNPOD_API_KEY"] = "k"
    if place == "ours":
        environ["GPUCLOUD_RUNPOD_API_KEY"] = "k"
    if place == "table":
        config.tables["runpod"] = {"api_key": "k"}  # type: ignore[index]
    if place == "file":
        (home / ".runpod").mkdir()
        (home / ".runpod" / "config.toml").write_text('apikey = "k"\n')
    if place == "kept":
        config.credential_file.put("runpod", {"api_key": "k"})
    assert Registry(replace(config, environ=environ)).is_set_up("runpod")


def test_a_key_below_the_folder_for_configuration_is_found_wherever_that_is(home: Path) -> None:
    environ = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "elsewhere")}
    config = load_config({}, environ, home)
    assert not Registry(config).is_set_up("vast")
    (home / "elsewhere" / "vastai").mkdir(parents=True)
    (home / "elsewhere" / "vastai" / "vast_api_key").write_text("k\n")
    assert Registry(config).is_set_up("vast")
