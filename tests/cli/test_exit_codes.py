"""Each exit status, reached the way a user reaches it."""

from __future__ import annotations

import pytest

from gpucloud.cli.exit_codes import ExitCode
from tests.harness.cli import Cli
from tests.harness.plugins import write_plugin
from tests.harness.waiting import eventually

SIM = ("--provider", "sim:boot=0s")


def sim(script: str) -> tuple[str, str, str]:
    return ("--provider", f"sim:{script}", "--yes")


REFUSALS = {
    "unknown option": (ExitCode.USAGE, ("launch", "--nosuch")),
    "nobody to ask": (ExitCode.USAGE, ("launch", *SIM)),
    "no such cluster": (ExitCode.NOTHING_MATCHED, ("down", "nosuch")),
    "no such job": (ExitCode.NOTHING_MATCHED, ("logs", "nosuch")),
    "no such offer": (ExitCode.NOTHING_MATCHED, ("offers", "NOPE")),
    "no such provider": (ExitCode.NOTHING_MATCHED, ("offers", "--provider", "nope")),
    "credentials": (ExitCode.CREDENTIALS, ("launch", *sim("auth"))),
    "unreachable": (ExitCode.UNREACHABLE, ("offers", "--provider", "sim:api500=99")),
    "no capacity": (ExitCode.NO_CAPACITY, ("launch", *sim("stockout=99"))),
    "quota": (ExitCode.QUOTA, ("launch", *sim("quota=99"))),
    "price": (ExitCode.PRICE, ("launch", *sim("price*10"), "--gpu", "H100", "--max-price", "3")),
    "budget": (ExitCode.BUDGET, ("launch", *sim("boot=0s"), "--gpu", "H100:8", "--max-cost", "0.01")),
    "setup": (ExitCode.SYNC_OR_SETUP, ("run", "task.yaml")),
    "unusable machines": (ExitCode.HOST_CHECK, ("launch", *sim("badhost=99"), "--ready-timeout", "1s")),
    "outputs": (ExitCode.OUTPUTS, ("run", "--output", "nothing", "--", "true")),
    "interrupted": (
        ExitCode.INTERRUPTED,
        ("run", *sim("interrupt@3s,notice=1s"), "--spot", "--", "while :; do sleep 0.1; done"),
    ),
    "limit": (
        ExitCode.BUDGET,
        ("run", "--max-duration", "15s", "--", "trap 'exit 0' TERM; while :; do sleep 0.1; done"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_has_its_status_and_says_what_to_do(cli: Cli, case: str) -> None:
    (cli.project / "task.yaml").write_text("setup: exit 1\nrun: true\n")
    code, words = REFUSALS[case]
    done = cli(*words) if words[0] != "run" else cli("run", *words[1:])
    assert done.code == code, done.err
    assert "next: " in done.err
    if code is not ExitCode.OUTPUTS:
        assert cli.ok("ps").out == ""
        assert cli("fsck").code == 0


def test_success_is_0_and_a_job_s_own_status_is_its_own(cli: Cli) -> None:
    assert cli("run", "--", "true").code == ExitCode.OK
    assert cli("run", "--", "exit 80").code == 80
    assert cli("run", "--json", "--", "exit 80").json["code_from"] == "job"


def test_a_bug_is_1_and_asks_for_a_report(cli: Cli) -> None:
    plugins = cli.project.parent / "plugins"
    write_plugin(
        plugins,
        "buggy",
        "from gpucloud_local import Local\n"
        "class Buggy(Local):\n"
        "    name = 'buggy'\n"
        "    def launch(self, offer, spec):\n"
        "        return 1 / 0\n",
    )
    done = cli("launch", "--provider", "buggy", "--no-push", env={"PYTHONPATH": str(plugins)})
    assert done.code == ExitCode.FAILURE
    assert "ZeroDivisionError" in done.err
    assert "--debug" in done.err


def test_fsck_is_6_while_something_bills_that_nobody_wants(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push", *sim("boot=0s"))
    assert cli("fsck").code == 0
    for part in cli.data.glob("gpucloud.db*"):
        part.unlink()
    done = cli("fsck", "--json", env={"GPUCLOUD_SIM_SCRIPT": "boot=0s"})
    assert done.code == ExitCode.UNEXPLAINED
    assert [finding["kind"] for finding in done.json["findings"]] == ["unknown"]


def test_fsck_is_5_when_a_provider_cannot_be_asked(cli: Cli) -> None:
    done = cli("fsck", "--json", env={"GPUCLOUD_SIM_SCRIPT": "api500=99", "GPUCLOUD_OFFERS_TIMEOUT": "1s"})
    assert done.code == ExitCode.UNREACHABLE
    assert done.json["failures"][0]["provider"] == "sim"


def test_the_loser_of_a_race_for_a_name_is_75(cli: Cli) -> None:
    winner = cli.start("launch", "--name", "x", "--no-push", *sim("boot=3s"))
    eventually(lambda: cli.ok("ps").out)
    loser = cli("launch", "--name", "x", "--no-push", *sim("boot=3s"))
    assert loser.code == ExitCode.LOCKED
    assert winner.communicate()[0].strip() == "x"
    assert winner.returncode == 0


def test_a_teardown_without_proof_is_88_until_it_is_proved(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push", *sim("stuck=25"))
    done = cli("down", "x", "--yes", env={"GPUCLOUD_LAUNCH_END_TIMEOUT": "1s"})
    assert done.code == ExitCode.TEARDOWN
    assert "may still be billing" in done.err
    assert cli("fsck").code == ExitCode.UNEXPLAINED
    cli("fsck", "--fix", "--yes")
    assert cli("fsck").code == 0


def test_every_status_has_a_test_here() -> None:
    tested = {code for code, _ in REFUSALS.values()} | {
        ExitCode.OK,
        ExitCode.FAILURE,
        ExitCode.UNEXPLAINED,
        ExitCode.LOCKED,
        ExitCode.TEARDOWN,
        ExitCode.BY_PERSON,  # tests/cli/test_interrupts.py
    }
    assert tested == set(ExitCode)
