"""``gpucloud run``: the whole cycle."""

from __future__ import annotations

import json

import pytest

from tests.harness.cli import Cli, Finished


def nothing_is_left(cli: Cli) -> bool:
    fsck = cli("fsck", "--json")
    return cli.ok("ps").out == "" and fsck.code == 0 and fsck.json["findings"] == []


def run(cli: Cli, *words: str) -> Finished:
    return cli("run", *words)


def test_the_job_s_own_status_comes_back_with_its_output(cli: Cli) -> None:
    done = run(cli, "--output", "out.txt", "--", "sh", "-c", "echo hi > out.txt; echo to the log; exit 7")
    assert done.code == 7
    assert done.out == "to the log\n"
    assert (cli.project / "out.txt").read_text() == "hi\n"
    assert "machine gone, confirmed" in done.err
    assert "cost $0.0000" in done.err
    assert nothing_is_left(cli)


def test_code_is_pushed_and_a_real_program_runs_on_it(cli: Cli) -> None:
    (cli.project / "pkg").mkdir()
    (cli.project / "pkg" / "numbers.txt").write_text("1\n2\n3\n")
    (cli.project / "sum.sh").write_text("awk '{s+=$1} END {print s}' pkg/numbers.txt | tee total\n")
    done = run(cli, "--output", "total", "--", "sh sum.sh")
    assert (done.code, done.out) == (0, "6\n")
    assert (cli.project / "total").read_text() == "6\n"


def test_with_json_stdout_is_one_document_and_the_log_is_on_stderr(cli: Cli) -> None:
    done = run(cli, "--json", "--", "echo logged; exit 4")
    assert done.code == 4
    document = done.json
    assert document["schema"] == "gpucloud.run/1"
    assert (document["exit_code"], document["code_from"]) == (4, "job")
    assert document["cost"] == "0"
    assert "logged" in done.err


def test_a_broker_failure_is_told_from_the_job_s_own(cli: Cli) -> None:
    done = run(cli, "--json", "--gpu", "NOSUCH", "--", "true")
    assert (done.code, done.json["code"], done.json["code_from"]) == (3, 3, "broker")


def test_a_job_stops_at_its_first_failing_command(cli: Cli) -> None:
    done = run(cli, "--", "echo one\nfalse\necho two")
    assert (done.code, done.out) == (1, "one\n")


def test_several_words_are_one_command_and_keep_their_quotes(cli: Cli) -> None:
    done = run(cli, "--", "printf", "%s|", "a b", "$HOME", "it's")
    assert done.out == "a b|$HOME|it's|"


def test_the_environment_says_where_the_job_runs(cli: Cli) -> None:
    done = run(cli, "--env", "A=b c", "--nodes", "2", "--", "env")
    variables = dict(line.partition("=")[::2] for line in done.out.splitlines() if "=" in line)
    assert variables["A"] == "b c"
    assert variables["GPUCLOUD_NODE_RANK"] == "0"
    assert variables["GPUCLOUD_NUM_NODES"] == "2"
    assert variables["GPUCLOUD_JOB_ID"].startswith("j-")
    assert variables["MASTER_ADDR"] == "127.0.0.1"


def test_the_status_of_any_node_that_fails_is_the_job_s(cli: Cli) -> None:
    done = run(cli, "--nodes", "3", "--", "exit $((GPUCLOUD_NODE_RANK == 2 ? 5 : 0))")
    assert done.code == 5
    assert nothing_is_left(cli)


def test_a_secret_reaches_the_job_and_nothing_else(cli: Cli) -> None:
    secret = "correct-horse-battery-staple"
    done = cli(
        "run",
        "--secret",
        "TOKEN",
        "--debug",
        "--",
        'test "$TOKEN" = correct-horse-battery-staple',
        env={"TOKEN": secret},
    )
    assert done.code == 0
    assert secret not in done.err.replace('test "$TOKEN" = correct-horse-battery-staple', "")
    for file in cli.data.rglob("*"):
        if file.is_file():
            content = file.read_bytes().replace(b'test "$TOKEN" = correct-horse-battery-staple', b"")
            assert secret.encode() not in content, file


def test_keep_leaves_the_machine_and_a_later_run_uses_it(cli: Cli) -> None:
    assert run(cli, "--name", "x", "--keep", "--", "echo made > there").code == 0
    first = cli.ok("ps", "--json").json["clusters"][0]["nodes"][0]["token"]
    done = run(cli, "--name", "x", "--", "cat there")
    assert (done.code, done.out) == (0, "made\n")
    assert cli.ok("ps", "--json").json["clusters"][0]["nodes"][0]["token"] == first
    assert "machine kept" in done.err


def test_outputs_that_are_not_there_keep_the_machine(cli: Cli) -> None:
    done = run(cli, "--name", "x", "--output", "model.pt", "--", "touch modle.pt")
    assert done.code == 86
    assert "costs $0.00 an hour" in done.err
    assert cli.ok("ps", "--json").json["clusters"][0]["name"] == "x"
    assert cli("down", "x", "--yes").code == 86
    assert cli("down", "x", "--yes", "--discard-outputs").code == 0
    assert nothing_is_left(cli)


def test_a_failed_job_without_its_outputs_is_ended_all_the_same(cli: Cli) -> None:
    done = run(cli, "--output", "model.pt", "--", "exit 9")
    assert done.code == 9
    assert "'model.pt' matches nothing" in done.err
    assert nothing_is_left(cli)


def test_a_file_that_was_edited_meanwhile_is_not_overwritten(cli: Cli) -> None:
    (cli.project / "notes.txt").write_text("before\n")
    edit = f"echo from the job > notes.txt; echo mine > '{cli.project}/notes.txt'"
    done = run(cli, "--output", "notes.txt", "--", edit)
    assert done.code == 0
    assert (cli.project / "notes.txt").read_text() == "mine\n"
    beside = [path for path in cli.project.iterdir() if path.name.startswith("notes.txt.from-j-")]
    assert [path.read_text() for path in beside] == ["from the job\n"]


def test_an_interrupted_job_is_recovered_on_another_machine(cli: Cli) -> None:
    (cli.project / "train.sh").write_text(
        'step=$(cat step 2>/dev/null || echo 0); echo "from $step"\n'
        "trap 'echo \"$step\" > step; exit 1' TERM\n"
        'while [ "$step" -lt 50 ]; do\n'
        '  sleep 0.1; step=$((step + 1)); [ "$step" -ne 5 ] || touch ~/.interrupt\n'
        "done\n"
        "echo done > result\n"
    )
    done = run(
        cli, "--provider", "sim:interrupt@asked,notice=1m", "--spot", "--recover", "--yes", "--json",
        "--output", "step", "--output", "result", "--", "sh train.sh",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["attempts"] == 2
    assert (cli.project / "result").read_text() == "done\n"
    log = cli.ok("logs", done.json["job"]).out
    first, second = [int(line.split()[1]) for line in log.splitlines() if line.startswith("from")]
    assert (first, second) == (0, int((cli.project / "step").read_text()))
    assert second >= 5
    assert nothing_is_left(cli)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nofile.yaml"], "nofile.yaml"),
        (["python", "train.py"], "after --"),
        (["--"], "no command after --"),
        (["--name", "Bad Name", "--", "true"], "cannot be a name"),
        (["--gpu", "H100:0", "--", "true"], "--gpu makes no sense"),
        (["--max-duration", "5", "--", "true"], "--max-duration makes no sense"),
        (["--env", "NOT_SET_HERE", "--", "true"], "NOT_SET_HERE is not set"),
        (["--secret", "NOT_SET_HERE", "--", "true"], "NOT_SET_HERE is not set"),
        (["--secret", "TOKEN=hunter2", "--", "true"], "takes a name, not a value"),
        (["--output", "../out", "--", "true"], "is not inside the working directory"),
        (["--workdir", "nowhere", "--", "true"], "no folder nowhere"),
        (["--workdir", "~", "--", "true"], "would be pushed whole"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_rented(cli: Cli, words: list[str], said: str) -> None:
    done = run(cli, *words)
    assert done.code == 2
    assert said in done.err
    assert not (cli.data / "providers").exists()


def test_a_task_file_says_all_of_it(cli: Cli) -> None:
    (cli.project / "data").mkdir()
    (cli.project / "data" / "in.txt").write_text("abc")
    (cli.project / "single.cfg").write_text("cfg")
    (cli.project / "task.yaml").write_text(
        """\
name: told
num_nodes: 1
resources: {infra: sim, accelerators: "RTX4090", use_spot: true, max_hourly_cost: 3}
envs: {A: 1e-3, B: null}
secrets: {S: null}
file_mounts: {inputs: data, conf/renamed.cfg: single.cfg}
setup: |
  echo setting up
  echo ready > setup.txt
run: |
  cat setup.txt inputs/in.txt conf/renamed.cfg
  echo "$A $B ${#S}" > out.txt
outputs: out.txt
max_duration: 10m
max_cost: 1
"""
    )
    done = cli("run", "task.yaml", "--yes", env={"B": "from-env", "S": "12345"})
    assert done.code == 0, done.err
    assert done.out == "setting up\nready\nabccfg"
    assert (cli.project / "out.txt").read_text() == "1e-3 from-env 5\n"
    assert "ends after 10m" in done.err
    assert nothing_is_left(cli)


def test_options_replace_what_the_task_file_says(cli: Cli) -> None:
    (cli.project / "task.yaml").write_text('envs: {A: "file"}\nresources: {infra: sim}\nrun: echo "$A"\n')
    done = run(cli, "task.yaml", "--provider", "local", "--env", "A=option")
    assert (done.code, done.out) == (0, "option\n")


def test_an_unknown_key_names_line_and_nearest_key(cli: Cli) -> None:
    (cli.project / "task.yaml").write_text("run: true\nresources:\n  acelerators: H100\n")
    done = run(cli, "task.yaml")
    assert done.code == 2
    assert "task.yaml:3" in done.err
    assert "accelerators" in done.err


def test_a_failing_setup_is_no_run(cli: Cli) -> None:
    (cli.project / "task.yaml").write_text("setup: |\n  echo a\n  exit 3\nrun: echo never\n")
    done = run(cli, "task.yaml")
    assert (done.code, done.out) == (84, "a\n")
    assert "setup" in done.err
    assert nothing_is_left(cli)


def test_a_run_whose_reader_leaves_still_ends_its_machine(cli: Cli) -> None:
    import subprocess
    import sys

    shell = f"'{sys.executable}' -m gpucloud run -- seq 100000 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=cli.project,
        env=dict(cli.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
    assert nothing_is_left(cli)


def test_the_demo_shows_all_of_it(cli: Cli) -> None:
    done = cli.ok("demo", "--json")
    document = json.loads(done.out)
    assert (document["attempts"], document["exit_code"]) == (2, 0)
    for said in ("refused", "interrupted", "verified", "no longer listed", "resuming at step"):
        assert said in done.err
    assert not cli.data.joinpath("gpucloud.db").exists()
