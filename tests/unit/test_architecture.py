"""The rules of the house, read off the source with ``ast``: who may import whom, what, and where."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "gpucloud"
ADAPTERS = ROOT / "providers"

BOTTOM = {"calls", "model", "errors", "quantities", "redact", "parallel"}
"""Modules that everybody may use; they use only each other."""

MAY_IMPORT = {
    "calls": set(),
    "model": set(),
    "errors": set(),
    "quantities": set(),
    "redact": set(),
    "parallel": set(),
    "download": {"http"},
    "replies": {"http"},
    "provider": {"http"},
    "cloud_init": {"provider"},
    "labels": {"provider"},
    "account_keys": {"provider", "labels"},
    "rest": {"provider", "http", "refusals", "replies"},
    "refusals": set(),
    "wire": set(),
    "http": set(),
    "credentials": {"provider"},
    "config": {"credentials", "provider"},
    "catalog": set(),
    "registry": {"config", "credentials", "provider"},
    "market": {"catalog", "registry", "provider", "http"},
    "taskfile": {"catalog"},
    "store": set(),
    "remote": {"provider"},
    "fleet": {"catalog", "market", "registry", "config", "http", "store", "remote", "provider"},
    "jobs": {"fleet", "store", "remote"},
    "cli": {
        "catalog",
        "jobs",
        "fleet",
        "market",
        "registry",
        "config",
        "credentials",
        "store",
        "remote",
        "provider",
        "taskfile",
    },
    "testing": {"catalog", "provider", "http", "remote", "store"},
}
"""What each room may import besides itself and the bottom."""

ADAPTERS_MAY_IMPORT = BOTTOM | {
    "provider",
    "account_keys",
    "cloud_init",
    "http",
    "download",
    "labels",
    "refusals",
    "replies",
    "rest",
    "wire",
}
VOCABULARIES = {"gpucloud.catalog.names", "gpucloud.catalog.currencies", "gpucloud.catalog.sellers"}
"""What of the catalogue an adapter may use, to translate its vendor's words and money."""

BUILT_ON = {"gpucloud_sim": {"gpucloud_local"}}
"""Adapters whose vendor is another adapter."""

HEAVY = {
    "asyncssh",
    "azure",
    "boto3",
    "botocore",
    "cryptography",
    "filelock",
    "google",
    "httpx",
    "keyring",
    "paramiko",
    "pathspec",
    "platformdirs",
    "pydantic",
    "rich",
    "ruamel",
    "tenacity",
    "tomlkit",
}
"""What costs a command time that does not need it."""

LAZY_ROOMS = {
    "gpucloud/remote": "imported only by what opens a connection or reads a tree",
    "gpucloud/wire.py": "imported only by the wire models of adapters",
    "gpucloud/testing": "imported only by tests",
    "gpucloud_local/server.py": "a process of its own",
    "gpucloud_local/sshd_asyncssh.py": "imported by the server process",
    "gpucloud_local/sshd_openssh.py": "imported by the server process",
    "gpucloud_runpod/graphql.py": "imported only when the public catalogue is read",
}
"""Files that may import heavy things at their top, because they are themselves imported late, and why."""

TERMINAL = {"print", "input"}


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(CORE).parts[0].removesuffix(".py")


def imports(file: Path, *, top_only: bool = False) -> Iterator[str]:
    """Every module that a file imports, whole; with ``top_only`` only when the file itself is imported."""
    tree = ast.parse(file.read_text())
    for node in _run_on_import(tree) if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _run_on_import(node)


def heavy_imports(file: Path) -> set[str]:
    return {name for name in imports(file, top_only=True) if name.split(".")[0] in HEAVY}


def rooms_imported(file: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(file) if name.startswith("gpucloud.")}
    return {name for name in found if (CORE / name).is_dir() or (CORE / f"{name}.py").is_file()}


@pytest.mark.parametrize("file", sources(CORE), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_in_the_allowed_directions(file: Path) -> None:
    here = room(file)
    if here in {"__init__", "__main__"}:
        return
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[here] | BOTTOM | {here}
    assert rooms_imported(file) <= allowed


def test_every_room_in_the_rules_exists() -> None:
    assert {room(file) for file in sources(CORE)} - {"__init__", "__main__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", sources(ADAPTERS), ids=lambda f: str(f.relative_to(ROOT)))
def test_adapters_import_nothing_of_the_core_but_the_contract(file: Path) -> None:
    package = file.relative_to(ADAPTERS).parts[0]
    used = {name for name in imports(file) if name.startswith("gpucloud.catalog")}
    words = {name for name in used if any(name.startswith(word) for word in VOCABULARIES)}
    assert used - {"gpucloud.catalog"} <= words
    assert rooms_imported(file) - {"catalog"} <= ADAPTERS_MAY_IMPORT
    others = {name.split(".")[0] for name in imports(file) if name.startswith("gpucloud_")} - {package}
    assert others <= BUILT_ON.get(package, set())


@pytest.mark.parametrize("file", [*sources(CORE), *sources(ADAPTERS)], ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_module_top(file: Path) -> None:
    place = file.relative_to(ROOT).as_posix().removeprefix("providers/")
    if any(place.startswith(lazy) for lazy in LAZY_ROOMS):
        return
    assert not heavy_imports(file) or file.name == "api.py"


@pytest.mark.parametrize("folder", [f for f in ADAPTERS.iterdir() if f.is_dir()], ids=lambda f: f.name)
def test_the_vendor_s_words_are_imported_by_verbs_only_where_they_are_heavy(folder: Path) -> None:
    api = folder / "api.py"
    if api.exists() and heavy_imports(api):
        for file in folder / "__init__.py", folder / "adapter.py":
            assert f"{folder.name}.api" not in imports(file, top_only=True)


@pytest.mark.parametrize("file", sources(CORE), ids=lambda f: str(f.relative_to(ROOT)))
def test_the_core_names_no_provider(file: Path) -> None:
    if (
        file.name == "registry.py" or file == CORE / "cli" / "demo.py"
    ):  # the demo plays on the simulated market
        return
    from gpucloud.registry import BUILTIN, PRICES_ONLY

    names = {*BUILTIN, *PRICES_ONLY} - {"local", "ssh"}
    words = {
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not {word for word in words if word.partition(":")[0] in names}
    assert not {name for name in imports(file) if name.startswith("gpucloud_")}


def test_every_registered_adapter_has_a_conformance_test() -> None:
    from gpucloud.provider import Provider, PublicCatalog, SpotHistory
    from gpucloud.registry import BUILTIN, PRICES_ONLY, load

    for name in (*BUILTIN, *PRICES_ONLY):
        tests = [
            ast.parse(file.read_text()) for file in (ROOT / "tests" / "providers" / name).glob("test_*.py")
        ]
        classes = [node for tree in tests for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        bases = {ast.unparse(base) for node in classes for base in node.bases}
        adapter = load(name)
        for contract, suite in {
            Provider: "ProviderConformance",
            PublicCatalog: "CatalogConformance",
            SpotHistory: "SpotHistoryConformance",
        }.items():
            assert suite in bases or not issubclass(adapter, contract), f"{name} has no {suite}"


def test_every_adapter_folder_is_registered() -> None:
    from gpucloud.registry import BUILTIN, PRICES_ONLY

    folders = {folder.name.removeprefix("gpucloud_") for folder in ADAPTERS.iterdir() if folder.is_dir()}
    assert folders == {*BUILTIN, *PRICES_ONLY}


@pytest.mark.parametrize("file", [*sources(CORE), *sources(ADAPTERS)], ids=lambda f: str(f.relative_to(ROOT)))
def test_only_the_cli_touches_the_terminal(file: Path) -> None:
    place = file.relative_to(ROOT).as_posix()
    # What runs on the host talks to us through its stdin and stdout.
    if (
        place.startswith(("gpucloud/cli/", "gpucloud/remote/agent/"))
        or place == "gpucloud/remote/terminal.py"
    ):
        return
    tree = ast.parse(file.read_text())
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & TERMINAL
    streams = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not streams & {"sys.stdout", "sys.stderr", "sys.stdin"}


@pytest.mark.parametrize("file", sources(CORE), ids=lambda f: str(f.relative_to(ROOT)))
def test_commands_are_short(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef) and any(
            "command" in ast.unparse(d) for d in node.decorator_list
        ):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{node.name} is longer than 40 lines"


def test_posix_only_modules_are_imported_where_they_are_needed() -> None:
    unportable = {"fcntl", "termios", "pty", "pwd", "grp", "resource", "tty"}
    of_the_server_process = {"server.py", "sshd_asyncssh.py"}
    for file in [*sources(CORE), *sources(ADAPTERS)]:
        found = unportable & set(imports(file, top_only=True))
        assert not found or file.name in of_the_server_process, f"{file}: {found}"


def loaded_by(*words: str, home: Path) -> list[str]:
    """What of the heavy things a command loads."""
    script = (
        "import sys; from gpucloud.cli import execute;"
        f"assert execute({list(words)!r}) == 0;"
        f"print([name for name in {sorted(HEAVY)!r} if name in sys.modules], file=sys.stderr)"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GPUCLOUD_OFFERS_PROVIDERS": "ssh"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(ast.literal_eval(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("command", "budget"),
    [
        ("--version", set()),
        ("--help", set()),
        ("providers", {"platformdirs"}),
        ("config show", {"platformdirs"}),
        ("offers --offline --json", {"platformdirs"}),
        ("offers H100 --offline --where gpu_count>0", {"platformdirs"}),
        ("gpus --json", {"platformdirs"}),
        ("suggest --vram 40GB", {"platformdirs"}),
        ("explain ssh stop", set()),
        ("catalog check", set()),
        ("ps", {"platformdirs", "filelock"}),
        ("jobs", {"platformdirs", "filelock"}),
    ],
)
def test_a_command_loads_nothing_that_it_does_not_need(command: str, budget: set[str], home: Path) -> None:
    assert set(loaded_by(*command.split(" "), home=home)) <= budget


def test_every_command_is_where_its_table_says() -> None:
    import typer

    from gpucloud.cli import commands

    commands.load()
    tree = typer.main.get_command(commands.app)
    assert isinstance(tree, click.Group)
    assert set(tree.commands) == set(commands.HOMES)
    for name, command in tree.commands.items():
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        homes = {getattr(each.callback, "__module__", "") for each in inner}
        assert homes == {f"gpucloud.cli.{commands.HOMES[name]}"}
