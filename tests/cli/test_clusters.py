"""Machines that stay: launch, use, and end them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpucloud_local import api
from tests.harness.cli import Cli
from tests.harness.waiting import eventually


def instances(cli: Cli, provider: str = "local") -> list[str]:
    folder = cli.data / "providers" / provider / ("instances" if provider == "sim" else "")
    return [machine.spec.token for machine in api.machines(folder) if not machine.ended]


def test_launch_prints_the_job_and_returns_when_it_has_started(cli: Cli) -> None:
    job = cli.ok("launch", "--name", "x", "--", "sleep 1000").out.strip()
    assert job.startswith("j-")
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] == "running"
    done = cli.ok("cancel", job, "--grace", "5", "--json")
    assert done.json["jobs"][0]["state"] == "cancelled"
    assert cli.ok("cancel", job).err.strip() == f"{job} is over already: cancelled"
    assert cli.ok("ps").out != ""


def test_launch_with_json_is_one_document(cli: Cli) -> None:
    document = cli.ok("launch", "--name", "x", "--json", "--", "true").json
    node = document["clusters"][0]["nodes"][0]
    assert (document["schema"], document["clusters"][0]["state"]) == ("gpucloud.launch/1", "ready")
    assert (node["state"], node["host_key_source"], node["usd_per_hour"]) == ("reachable", "planted", "0")
    assert node["host_key"].startswith("ssh-ed25519 ")
    assert document["jobs"][0]["cluster"] == "x"


def test_a_second_launch_of_a_name_uses_what_is_up(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    done = cli.ok("launch", "--name", "x", "--no-push")
    assert "used again" in done.err
    assert len(instances(cli)) == 1


def test_two_launches_of_a_name_at_once_rent_one_machine(cli: Cli) -> None:
    racers = [cli.start("launch", "--name", "x", "--no-push") for _ in range(6)]
    codes = []
    for racer in racers:
        racer.communicate()
        codes.append(racer.returncode)
    assert set(codes) <= {0, 75}
    assert 0 in codes
    assert len(instances(cli)) == 1


def test_a_name_that_is_something_else_is_refused(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    done = cli("launch", "--name", "x", "--nodes", "2", "--no-push")
    assert done.code == 2
    assert "it has 1 node(s)" in done.err


def test_a_machine_that_died_is_noticed_and_replaced(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push", "--max-duration", "10s")
    eventually(lambda: not instances(cli))
    done = cli.ok("launch", "--name", "x", "--no-push", "--json")
    assert "used again" not in done.err
    assert len(instances(cli)) == 1
    assert len(done.json["clusters"][0]["nodes"]) == 1


def test_several_nodes_are_one_cluster(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--nodes", "3", "--", 'echo "rank $GPUCLOUD_NODE_RANK" > rank')
    assert len(instances(cli)) == 3
    cli.ok("logs", "-f", "x")
    found = cli.ok("exec", "--all", "--json", "x", "--", "cat rank").json["nodes"]
    assert [(node["rank"], node["stdout"]) for node in found] == [(n, f"rank {n}\n") for n in range(3)]
    assert cli.ok("exec", "x-2", "--", "cat", "rank").out == "rank 2\n"
    assert cli("exec", "x-3", "--", "true").code == 3
    cli.ok("down", "x", "--yes")
    assert instances(cli) == []


def test_not_all_nodes_is_none(cli: Cli) -> None:
    done = cli(
        "launch", "--name", "x", "--nodes", "2", "--no-push", "--yes", "--gpu", "RTX4090",
        "--provider", "sim:stockout=3",
    )  # fmt: skip
    assert done.code == 80
    assert instances(cli, "sim") == []
    assert cli.ok("ps").out == ""


def test_exec_is_the_command_s_own_in_status_and_streams(cli: Cli) -> None:
    cli.ok("launch", "--name", "x")
    done = cli("exec", "x", "--", "cat; echo err >&2; exit 9", stdin="in\n")
    assert (done.code, done.out, done.err) == (9, "in\n", "err\n")
    assert cli("exec", "x", "nosuchprogram").code == 127
    assert cli.ok("exec", "x", "--", "printf", "%s", "a  b").out == "a  b"


def test_exec_does_not_wait_for_a_keyboard_that_stays_open(cli: Cli) -> None:
    import subprocess
    import sys

    cli.ok("launch", "--name", "x", "--no-push")
    with subprocess.Popen(
        [sys.executable, "-m", "gpucloud", "exec", "x", "--", "true"],
        cwd=cli.project,
        env=dict(cli.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(timeout=60) == 0


def pushed(cli: Cli, *names: str) -> tuple[int, int, int]:
    """How many files and bytes one node gets by a push, and how many files go there."""
    (node,) = cli.ok("push", *names, "--json").json["pushed"]
    return node["files"], node["bytes"], node["removed"]


def test_push_then_pull_is_the_same_tree(cli: Cli, tmp_path: Path) -> None:
    (cli.project / "a b").mkdir()
    (cli.project / "a b" / "ü\n.txt").write_text("odd")
    (cli.project / "ignored.log").write_text("x")
    (cli.project / ".gitignore").write_text("*.log\n")
    cli.ok("launch", "--name", "x")
    assert pushed(cli, "x") == (0, 0, 0)
    (cli.project / "new").write_text("new")
    (cli.project / "a b" / "ü\n.txt").unlink()
    assert pushed(cli) == (1, 3, 1)
    done = cli.ok("pull", "x", ".", "--to", str(tmp_path / "back"), "--json")
    back = {
        path.relative_to(tmp_path / "back").as_posix()
        for path in (tmp_path / "back").rglob("*")
        if path.is_file()
    }
    assert back == {".gitignore", "new"}
    assert len(done.json["files"]) == 2


def test_a_dry_run_tells_what_is_big_and_sends_nothing(cli: Cli) -> None:
    (cli.project / "data").mkdir()
    (cli.project / "data" / "big.bin").write_bytes(bytes(3_000_000))
    (cli.project / "small").write_text("x")
    document = cli.ok("push", "--dry-run", "--json").json
    assert (document["files"], document["bytes"]) == (2, 3_000_001)
    assert {"path": "data/big.bin", "bytes": 3_000_000} in document["biggest"]
    assert not cli.data.exists()


def test_what_matches_nothing_is_not_pulled_in_silence(cli: Cli) -> None:
    (cli.project / "there").write_text("x")
    cli.ok("launch", "--name", "x")
    done = cli("pull", "x", "there", "nowhere/*.pt", "--to", "out")
    assert done.code == 86
    assert "'nowhere/*.pt' matches nothing there" in done.err
    assert (cli.project / "out" / "there").read_text() == "x"


def test_down_brings_declared_outputs_home_first(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--output", "result", "--", "echo done > result")
    eventually(lambda: cli.ok("jobs", "--json").json["jobs"][0]["state"] == "succeeded")
    done = cli.ok("down", "x", "--yes", "--json")
    assert (cli.project / "result").read_text() == "done\n"
    assert done.json["clusters"][0]["state"] == "ended"
    assert "gone, confirmed" in done.err
    assert instances(cli) == []


def test_down_of_everything(cli: Cli) -> None:
    for name in ("a", "b"):
        cli.ok("launch", "--name", name, "--no-push")
    assert cli("down").code == 2
    assert cli("down", "--all").code == 2
    cli.ok("down", "--all", "--yes")
    assert instances(cli) == []
    assert cli.ok("ps", "--json").json["clusters"] == []


def test_paid_machines_are_rented_only_with_consent(cli: Cli) -> None:
    words = ("launch", "--name", "x", "--no-push", "--provider", "sim:boot=0s")
    done = cli(*words)
    assert done.code == 2
    assert "at worst for $" in done.err
    assert "add --yes" in done.err
    assert instances(cli, "sim") == []
    cli.ok(*words, "--yes")
    assert len(instances(cli, "sim")) == 1
    assert float(cli.ok("ps", "--json").json["clusters"][0]["cost"]) > 0
    cli.ok("down", "x", "--yes")


def test_no_input_means_no_question(cli: Cli) -> None:
    for variable in ("GPUCLOUD_NO_INPUT", "CI"):
        done = cli("launch", "--provider", "sim:boot=0s", "--no-push", env={variable: "1"}, stdin="y\n")
        assert done.code == 2


def test_a_launch_falls_over_to_the_next_offer_and_remembers_the_refusal(cli: Cli) -> None:
    words = ("launch", "--no-push", "--yes", "--gpu", "H100", "--provider", "sim:stockout=1")
    done = cli.ok(*words, "--name", "a")
    refused = [line for line in done.err.splitlines() if "refused" in line]
    assert len(refused) == 1
    assert "sim-" in refused[0]
    again = cli.ok(*words, "--name", "b")
    assert "refused" not in again.err
    places = [c["nodes"][0]["region"] for c in cli.ok("ps", "--json").json["clusters"]]
    assert places[0] == places[1]
    cli.ok("down", "--all", "--yes")


def test_a_bad_host_is_ended_before_the_next_is_tried(cli: Cli) -> None:
    done = cli.ok(
        "launch", "--name", "x", "--no-push", "--yes", "--gpu", "H100", "--ready-timeout", "2s",
        "--provider", "sim:badhost=1",
    )  # fmt: skip
    steps = [line.split()[0] for line in done.err.splitlines() if line.startswith("   ")]
    assert steps.index("unusable") < steps.index("gone") < len(steps) - 1 - steps[::-1].index("rented")
    assert len(instances(cli, "sim")) == 1
    cli.ok("down", "x", "--yes")


def test_ps_asks_the_providers_when_told_to(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push", "--max-duration", "10s")
    eventually(lambda: not instances(cli))
    assert len(cli.ok("ps", "--json").json["clusters"][0]["nodes"]) == 1
    assert cli.ok("ps", "--json", "--refresh").json["clusters"][0]["nodes"] == []


def test_logs_outlive_the_machine(cli: Cli) -> None:
    job = cli.ok("launch", "--name", "x", "--", "printf 'a\\nb\\n'").out.strip()
    cli.ok("logs", "-f", job)
    cli.ok("down", "x", "--yes")
    assert cli.ok("logs", job).out == "a\nb\n"


def test_a_job_whose_machine_went_away_is_not_said_to_run(cli: Cli) -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    cli.ok("launch", "--name", "x", "--max-duration", "10s", "--", stubborn)
    eventually(lambda: not instances(cli))
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] == "interrupted"


@pytest.mark.parametrize("script", ["throttle=3", "api500=2", "lost-reply=1", "slow-list=2", "boot=1s"])
def test_a_troubled_market_still_rents_exactly_one(cli: Cli, script: str) -> None:
    cli.ok("launch", "--name", "x", "--no-push", "--yes", "--provider", f"sim:{script}")
    assert len(instances(cli, "sim")) == 1
    cli.ok("down", "x", "--yes")
    assert instances(cli, "sim") == []
    assert cli("fsck").code == 0


def test_concurrent_commands_share_the_books(cli: Cli) -> None:
    launches = [cli.start("launch", "--name", f"c{n}", "--no-push", "--json") for n in range(6)]
    for launch in launches:
        out, err = launch.communicate()
        assert launch.returncode == 0, err
        assert json.loads(out)["clusters"][0]["state"] == "ready"
    assert len(cli.ok("ps").out.splitlines()) == 6
    ends = [cli.start("down", f"c{n}", "--yes") for n in range(6)]
    for end in ends:
        _, err = end.communicate()
        assert end.returncode == 0, err
    assert instances(cli) == []
