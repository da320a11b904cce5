"""A person at a terminal: tables, questions, a shell."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pexpect
import pytest
from pytest_httpserver import HTTPServer

from tests.harness.cli import Cli
from tests.harness.plugins import write_plugin

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def at_terminal(
    cli: Cli, *words: str, columns: int = 100, lines: int = 40, env: Mapping[str, str] = MappingProxyType({})
) -> pexpect.spawn[str]:
    return pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", *words],
        cwd=str(cli.project),
        env={**cli.environ, "TERM": "xterm-256color", **env},
        encoding="utf-8",
        dimensions=(lines, columns),
        timeout=60,
    )


def finish(process: pexpect.spawn[str]) -> str:
    text = str(process.read())
    process.close()
    return ANSI.sub("", text).replace("\r\n", "\n")


def test_a_table_has_a_header_and_local_times(cli: Cli) -> None:
    table = finish(at_terminal(cli, "offers", "--provider", "sim", columns=140))
    assert table.startswith("GPU ")
    assert "AVAILABLE" in table.splitlines()[0]
    assert "RTX4090-24" in table


@pytest.mark.parametrize(("columns", "shown", "left_out"), [(80, "AGE", "VCPUS"), (140, "VCPUS", "nothing")])
def test_a_first_run_answers_in_one_screen_with_ages(
    cli: Cli, columns: int, shown: str, left_out: str
) -> None:
    table = finish(at_terminal(cli, "offers", "H100", "--offline", columns=columns, lines=30)).splitlines()
    note, heading, *rows = table
    assert "--limit 0 shows all" in note
    assert len(table) < 30
    assert {"$/GPU-H", "AGE", shown} <= set(heading.split())
    assert left_out not in heading.split()
    ages = heading.index("AGE")
    for row in rows:
        assert len(row.rstrip()) <= columns
        assert re.fullmatch(r"[0-9]+[smhd]", row[ages:].split()[0])
        assert re.search(r" [0-9]+\.[0-9]{2} ", row)


SLOW = """
from gpucloud.model import Market, Offer, utcnow
from gpucloud_local import Local
from decimal import Decimal

class Slow(Local):
    name = "slow"

    @classmethod
    def configured(cls, settings):
        return True

    def offers(self, requirements):
        open(self.settings.environ["SLOW"]).close()
        yield Offer("slow", "late", Market.ON_DEMAND, Decimal("0.01"), utcnow(), "api")
"""


def test_what_the_first_provider_says_is_shown_while_another_is_waited_for(cli: Cli, tmp_path: Path) -> None:
    write_plugin(tmp_path / "plugins", "slow", SLOW)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    environ = {"PYTHONPATH": str(tmp_path / "plugins"), "SLOW": str(gate), "GPUCLOUD_OFFERS_TIMEOUT": "50s"}
    words = ("offers", "--provider", "sim", "--provider", "slow", "--spot", "--market", "on-demand")
    asked = at_terminal(cli, *words, columns=140, env=environ)
    asked.expect("RTX4090-24")
    gate.write_text("")
    table = finish(asked)
    assert asked.exitstatus == 0
    assert re.search(r"^\S.* slow +late ", table[table.rindex("GPU ") :], re.MULTILINE)


def test_how_far_a_refresh_has_come_is_shown_and_vanishes(cli: Cli, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/instance-types").respond_with_json([])
    environ = {"GPUCLOUD_VERDA_CATALOG_URL": httpserver.url_for("")}
    read = at_terminal(cli, "catalog", "refresh", "verda", env=environ)
    shown = str(read.read())
    read.close()
    assert read.exitstatus == 0
    assert "bytes" in shown
    assert shown.rstrip().splitlines()[-1].split() == ["verda", "-", "0", "0"]


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colour_is_left_out_where_it_is_not_wanted(cli: Cli, variable: str) -> None:
    process = at_terminal(cli, "offers", "--provider", "sim", env={variable: "dumb"})
    assert "\x1b[" not in process.read()
    process.close()


def test_a_paid_launch_asks_and_no_is_no(cli: Cli) -> None:
    words = ("launch", "--name", "x", "--no-push", "--provider", "sim:boot=0s")
    asked = at_terminal(cli, *words)
    asked.expect(r"Rent it, for at most \$[0-9.]+\? \[y/N\]")
    asked.sendline("n")
    assert "nothing was done" in finish(asked)
    assert asked.exitstatus == 2
    assert cli.ok("ps").out == ""

    asked = at_terminal(cli, *words)
    asked.expect(r"\[y/N\]")
    asked.sendline("y")
    finish(asked)
    assert asked.exitstatus == 0
    ending = at_terminal(cli, "down", "x")
    ending.expect(r"End it\? \[y/N\]")
    ending.sendline("yes")
    assert "gone, confirmed" in finish(ending)


def test_a_free_launch_does_not_ask(cli: Cli) -> None:
    process = at_terminal(cli, "run", "--no-push", "--", "echo hello")
    assert "hello" in finish(process)
    assert process.exitstatus == 0


def test_ctrl_c_at_a_question_is_130(cli: Cli) -> None:
    process = at_terminal(cli, "launch", "--no-push", "--provider", "sim:boot=0s")
    process.expect(r"\[y/N\]")
    process.sendintr()
    assert "interrupted" in finish(process)
    assert process.exitstatus == 130


@pytest.mark.parametrize("own", [False, True], ids=["system ssh", "built-in"])
def test_ssh_is_a_shell_in_the_pushed_folder(cli: Cli, own: bool) -> None:
    import shutil

    if not own and shutil.which("ssh") is None:
        pytest.skip("there is no ssh on this machine")
    (cli.project / "pushed.txt").write_text("x")
    cli.ok("launch", "--name", "x")
    without_ssh = str(cli.project.parent / "bin")
    shell = at_terminal(cli, "ssh", "x", env={"PATH": without_ssh} if own else {})
    shell.expect("[#$] ")
    shell.sendline("echo $((40 + 2)) $(ls); stty size; exit 5")
    shell.expect(r"42 pushed.txt")
    shell.expect("40 100")
    finish(shell)
    assert shell.exitstatus == 5


def test_ssh_runs_a_command_with_the_system_s_ssh(cli: Cli) -> None:
    import shutil

    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh on this machine")
    cli.ok("launch", "--name", "x", "--no-push")
    done = cli("ssh", "x", "--", "echo over ssh; exit 4")
    assert (done.code, done.out) == (4, "over ssh\n")
    config = cli.ok("config", "ssh").out.strip()
    assert not (cli.project.parent / ".ssh").exists()
    assert "StrictHostKeyChecking yes" in Path(config).read_text()


def test_the_ssh_include_is_one_line_and_only_on_request(cli: Cli) -> None:
    theirs = cli.project.parent / ".ssh" / "config"
    theirs.parent.mkdir(mode=0o700)
    theirs.write_text("Host mine\n  HostName example.org\n")
    cli.ok("config", "ssh", "--install")
    cli.ok("config", "ssh", "--install")
    text = theirs.read_text()
    assert text.count("Include ") == 1
    assert text.endswith("Host mine\n  HostName example.org\n")
