"""The README and the completions say what the program does; their generated parts are compared with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import click
import pytest
import typer

from gpucloud import cli

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
UPDATE = "GPUCLOUD_UPDATE_GENERATED"


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def commands() -> list[tuple[str, str]]:
    """Every command of the tree with its first sentence."""
    from gpucloud.cli.commands import HOMES, app, load

    load()
    tree = typer.main.get_command(app)
    assert isinstance(tree, click.Group)

    def walk(name: str, command: click.Command) -> list[tuple[str, str]]:
        if isinstance(command, click.Group):
            return [row for sub, child in command.commands.items() for row in walk(f"{name} {sub}", child)]
        return [(name, (command.help or "").split("\n")[0])]

    return [row for name in HOMES for row in walk(f"gpucloud {name}", tree.commands[name])]


def commands_table() -> str:
    return table(("Command", "What it does"), [(f"`{name}`", text) for name, text in commands()])


def providers_table() -> str:
    from gpucloud.provider import Provider
    from gpucloud.registry import load_all

    rows: list[tuple[str, ...]] = []
    for name, adapter in load_all().items():
        about = (adapter.__doc__ or "").splitlines()[0].rstrip(".")
        if not issubclass(adapter, Provider):
            rows.append((f"`{name}`", about, "prices only", "", "", ""))
            continue
        traits = adapter.traits
        markets = ", ".join(sorted(traits.markets))
        rows.append((f"`{name}`", about, traits.kind, markets, traits.fuse, traits.billed_while_stopped))
    return table(("Name", "What it is", "Rents a", "Markets", "Fuse", "Stopped, it bills"), rows)


def exit_codes_table() -> str:
    from gpucloud.cli.exit_codes import MEANINGS

    return table(("Status", "Meaning"), [(str(int(code)), text) for code, text in MEANINGS.items()])


GENERATED = {"commands": commands_table, "providers": providers_table, "exit codes": exit_codes_table}


@pytest.mark.parametrize("part", GENERATED)
def test_the_tables_of_the_readme_are_the_program_s(part: str) -> None:
    text = README.read_text()
    pattern = re.compile(rf"(<!-- {part} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    match = pattern.search(text)
    assert match, f"the README has no part {part!r}"
    wanted = GENERATED[part]()
    if UPDATE in os.environ:
        README.write_text(pattern.sub(lambda m: m[1] + wanted + m[3], text))
    else:
        assert match[2] == wanted, f"{UPDATE}=1 pytest tests/unit/test_docs.py"


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "gpucloud.bash"), ("zsh", "_gpucloud"), ("fish", "gpucloud.fish")]
)
def test_the_completions_are_the_program_s(shell: str, name: str) -> None:
    from gpucloud.cli.completion import script

    file = ROOT / "completions" / name
    if UPDATE in os.environ:
        file.write_text(script(shell) + "\n")
    assert file.read_text() == script(shell) + "\n", f"{UPDATE}=1 pytest tests/unit/test_docs.py"


def said_by_commands(*words: str) -> str:
    """What the commands themselves print, in a process in which nobody has loaded one before."""
    environ = {**os.environ, "COLUMNS": str(cli.USUAL_WIDTH), "TERM": "dumb"}
    script = f"from gpucloud.cli import execute; execute({list(words)!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_help_at_once_is_what_the_commands_say() -> None:
    said = said_by_commands("--help")
    if UPDATE in os.environ:
        cli.HELP.write_text(said)
    assert cli.at_once(["--help"]) == cli.at_once(["-h"]) == said, (
        f"{UPDATE}=1 pytest tests/unit/test_docs.py"
    )
    assert cli.at_once(["--version"]) == said_by_commands("--version")
    assert cli.at_once(["--help", "--json"]) is cli.at_once([]) is cli.at_once(["ps", "--help"]) is None


def test_every_module_has_a_docstring_and_a_reason() -> None:
    import ast

    for file in [*(ROOT / "gpucloud").rglob("*.py"), *(ROOT / "providers").rglob("*.py")]:
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_the_layout_in_contributing_is_the_layout() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = text.split("```")[1]
    named = set(re.findall(r"^  (\w+)(?:\.py|/)\s", block, re.MULTILINE))
    there = {
        p.stem for p in (ROOT / "gpucloud").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert named == there - {"__init__", "__main__"}


def test_the_changelog_has_an_unreleased_part() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
