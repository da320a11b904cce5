"""The first minutes of a new user, and of a new script."""

from __future__ import annotations

import csv
import io
import json
import os
import pwd
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.cli.context import owner
from gpucloud.registry import BUILTIN
from tests.harness.cli import COMMAND, Cli


def test_offers_work_on_first_run_piped_with_a_provider_failing(cli: Cli) -> None:
    done = cli.ok("offers", "--json", "--provider", "local", "--provider", "sim:auth")
    assert done.json["schema"] == "gpucloud.offers/1"
    assert {offer["provider"] for offer in done.json["offers"]} == {"local"}
    assert done.json["failures"] == [
        {
            "provider": "sim",
            "code": "auth",
            "message": "the credentials were refused",
            "retryable": False,
        }
    ]
    assert "sim: the credentials were refused" in done.err


def test_offers_go_through_json_tool(cli: Cli) -> None:
    shell = f"'{sys.executable}' -m gpucloud offers --json | '{sys.executable}' -m json.tool"
    done = subprocess.run(
        ["sh", "-c", shell],
        cwd=cli.project,
        env=dict(cli.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["offers"]


def test_offers_are_sorted_by_what_a_job_would_cost(cli: Cli) -> None:
    job = ("--provider", "sim", "--hours", "1.5", "--egress", "5GB", "--sort", "cost")
    found = cli.ok("offers", *job, "--json", "--limit", "9").json
    known = [Decimal(offer["cost"]) for offer in found["offers"] if not offer["cost_without"]]
    assert known == sorted(known)
    assert [bool(o["cost_without"]) for o in found["offers"]] == [False] * len(known) + [True] * (
        9 - len(known)
    )
    assert found["more"] is True
    dear = found["offers"][len(known) - 1]
    assert Decimal(dear["cost"]) == Decimal("1.5") * Decimal(dear["usd_per_hour"])
    header, first, *_ = cli.ok("offers", *job, "--csv", "--columns", "id,cost,cost_worst").out.splitlines()
    assert header == "id,cost,cost_worst"
    assert first.split(",")[0] == found["offers"][0]["id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sort", "cost"], "--sort cost needs --hours"),
        (["--sort", "luck"], "--sort knows no 'luck'"),
        (["--egress", "5GB"], "--egress needs --hours"),
        (["--columns", "cost"], "there is no column 'cost'"),
        (["--group-by", "colour"], "no column 'colour' to group by"),
        (["--live", "--offline"], "exclude each other"),
        (["--where", "vcpus >"], "--where makes no sense"),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(cli: Cli, words: list[str], said: str) -> None:
    done = cli("offers", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_gpu_is_typed_with_or_without_its_option(cli: Cli) -> None:
    words = ("offers", "--provider", "sim", "--columns", "id")
    either = cli.ok(*words, "--gpu", "H100|RTX4090").out
    assert either == cli.ok(*words, "H100|RTX4090").out != cli.ok(*words, "H100").out
    done = cli(*words, "H100", "--gpu", "RTX4090")
    assert done.code == 2
    assert "--gpu 'H100|RTX4090' for either" in done.err


def test_table_csv_and_json_agree(cli: Cli) -> None:
    columns = (
        "gpu",
        "gpu_count",
        "provider",
        "instance_type",
        "market",
        "availability",
        "vcpus",
        "memory_gib",
    )
    wanted = ("offers", "--offline", "--provider", "sim", "--limit", "0")
    cli.ok("offers", "--provider", "sim")
    document = cli.ok(*wanted, "--json").json["offers"]
    table = [line.split("\t") for line in cli.ok(*wanted, "--columns", ",".join(columns)).out.splitlines()]
    text = cli.ok(*wanted, "--columns", ",".join(columns), "--csv").out
    header, *rows = csv.reader(io.StringIO(text))
    assert tuple(header) == columns
    assert [
        ["" if offer[name] is None else str(offer[name]) for name in columns] for offer in document
    ] == rows
    assert [["" if cell == "-" else cell for cell in row] for row in table] == rows


def test_what_was_seen_last_stands_in_for_a_provider_that_fails(cli: Cli) -> None:
    before = cli.ok("offers", "--provider", "sim", "--json").json["offers"]
    done = cli.ok("offers", "--provider", "sim:auth", "--json")
    assert [offer["id"] for offer in done.json["offers"]] == [offer["id"] for offer in before]
    assert [failure["code"] for failure in done.json["failures"]] == ["auth"]
    said, instead = done.err.splitlines()
    assert said == "sim: the credentials were refused"
    assert instead.startswith("sim: what it offered ") and instead.endswith("s ago is shown instead")


def test_what_is_only_remembered_cannot_be_rented(cli: Cli) -> None:
    cli.ok("offers", "--provider", "sim")
    done = cli("launch", "--provider", "sim:auth", "--no-push", "--yes")
    assert done.code == 4
    assert cli.ok("ps").out == ""


def test_a_listed_price_is_shown_and_never_rented(cli: Cli) -> None:
    listed = cli.ok("offers", "H100", "--json").json["offers"]
    assert {offer["confidence"] for offer in listed} <= {"A", "B", "C"}
    assert all(offer["source"] and offer["as_of"] for offer in listed)
    assert cli("launch", "--gpu", "H100", "--no-push", "--yes").code == 3


def test_piped_offers_are_tab_separated_without_header_or_colour(cli: Cli) -> None:
    lines = cli.ok("offers", "--provider", "sim").out.splitlines()
    assert len(lines) == 16
    assert {len(line.split("\t")) for line in lines} == {15}
    assert "\x1b" not in "".join(lines)
    assert "PROVIDER" not in "".join(lines)


def test_offers_are_cheapest_first_and_filtered(cli: Cli) -> None:
    offers = cli.ok("offers", "H100:8", "--provider", "sim", "--json").json["offers"]
    assert {offer["gpu"] for offer in offers} == {"H100-SXM-80"}
    prices = [float(offer["usd_per_hour"]) for offer in offers]
    assert prices == sorted(prices)
    assert all(offer["usd_per_hour"] == str(offer["usd_per_hour"]) for offer in offers)
    spot = cli.ok("offers", "H100:8", "--provider", "sim", "--spot", "--json").json["offers"]
    assert {offer["market"] for offer in spot} == {"spot"}


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["ofers"], "offers"),
        (["offers", "H10", "--provider", "sim"], "H100"),
        (["offers", "--provider", "loca"], "local"),
        (["providers", "nw"], "new"),
    ],
)
def test_misspelt_words_get_a_suggestion(cli: Cli, words: list[str], suggestion: str) -> None:
    done = cli(*words)
    assert done.code in {2, 3}
    assert f"did you mean '{suggestion}'" in done.err


COMMANDS = (
    *("offers", "launch", "run", "exec", "ssh", "push", "pull", "logs", "jobs", "cancel", "ps", "down"),
    *("fsck", "demo", "completion"),
)
GROUPS = (("providers",), ("config",), ("config", "show"), ("config", "ssh"), ("providers", "new"))


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS), *GROUPS], ids=" ".join)
def test_help_is_there_for_everything_and_says_how_to_ask_for_json(cli: Cli, words: tuple[str, ...]) -> None:
    for asked in ("--help", "-h"):
        done = cli.ok(*words, asked)
        assert f"Usage: gpucloud {' '.join(words)}".rstrip() in done.out
        assert "--json" in done.out


def test_alone_it_shows_its_commands(cli: Cli) -> None:
    done = cli()
    assert "Commands:" in done.out + done.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example(cli: Cli, name: str) -> None:
    assert "Example: gpucloud" in cli.ok(name, "--help").out


def test_an_error_is_three_lines_and_with_json_one_document(cli: Cli) -> None:
    done = cli("down", "nosuch")
    assert done.code == 3
    assert done.out == ""
    what, why, hint = done.err.splitlines()
    assert what == "gpucloud: there is no cluster 'nosuch'"
    assert why.strip().startswith("why: ")
    assert hint.strip().startswith("next: ")

    done = cli("down", "nosuch", "--json")
    assert done.json == {
        "schema": "gpucloud.error/1",
        "code": 3,
        "name": "nothing-matched",
        "code_from": "broker",
        "message": "there is no cluster 'nosuch'",
        "why": "there is none at all",
        "hint": "gpucloud ps",
        "retryable": False,
    }


def test_a_wrong_option_is_a_document_too(cli: Cli) -> None:
    assert cli("offers", "--json", "--nosuch").json["code"] == 2


def test_down_suggests_the_cluster_that_was_meant(cli: Cli) -> None:
    cli.ok("launch", "--name", "train-big", "--no-push")
    done = cli("down", "train-bg")
    assert done.code == 3
    assert "did you mean 'train-big'?" in done.err


def test_a_reader_that_leaves_is_no_failure(cli: Cli) -> None:
    shell = f"set -o pipefail; '{sys.executable}' -m gpucloud offers --provider sim | head -n 1"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=cli.project,
        env=dict(cli.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_providers_are_listed_with_what_they_are(cli: Cli) -> None:
    listed = {p["name"]: p for p in cli.ok("providers", "--json").json["providers"]}
    assert sorted(name for name, row in listed.items() if not row["prices_only"]) == [*BUILTIN]
    assert listed["local"]["configured"] is True
    assert listed["ssh"]["configured"] is False
    assert listed["ssh"]["fuse"] == "D"


def test_settings_are_shown_with_their_origin_and_without_secrets(cli: Cli) -> None:
    config = cli.project.parent / "config" / "gpucloud"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        '[launch]\nmax_duration = "2h"\n[providers.acme]\napi_key = "hunter2"\nregion = "eu"\n'
    )
    (cli.project / "gpucloud.toml").write_text('[launch]\nmax_duration = "3h"\n')
    variables = {
        "GPUCLOUD_OFFERS_TIMEOUT": "3s",
        "GPUCLOUD_ACME_REGION": "us",
        "GPUCLOUD_SIM_SCRIPT": "boot=5s",
    }
    shown = cli.ok("config", "show", "--origin", env=variables).out
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.splitlines()}
    assert rows["launch.max_duration"] == ["3h", str(cli.project / "gpucloud.toml")]
    assert rows["offers.timeout"] == ["3s", "GPUCLOUD_OFFERS_TIMEOUT"]
    assert rows["launch.ready_timeout"][1] == "default"
    assert rows["providers.acme.region"] == ["us", "GPUCLOUD_ACME_REGION"]
    assert rows["providers.acme.api_key"][1] == str(config / "config.toml")
    assert rows["providers.sim.script"] == ["boot=5s", "GPUCLOUD_SIM_SCRIPT"]
    assert "hunter2" not in shown


def test_the_debug_log_stays_off_stdout(cli: Cli) -> None:
    done = cli.ok("offers", "--json", "--debug")
    assert done.json["offers"]


def test_a_user_without_a_name_can_rent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert re.fullmatch(rf"[a-z0-9]{{6}}-{os.getuid()}-[a-z0-9-]+", owner(tmp_path))


def test_nothing_is_written_outside_our_folders(cli: Cli) -> None:
    home = cli.project.parent
    cli.ok("run", "--no-push", "--", "true")
    touched = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert touched == {"data"}
    assert (cli.data.stat().st_mode & 0o777) == 0o700


def test_the_module_and_the_script_are_one_program(cli: Cli) -> None:
    assert cli.ok("--version").out.startswith("gpucloud ")
    assert COMMAND[1:] == ("-m", "gpucloud")


COMPLETIONS = Path(__file__).resolve().parents[2] / "completions"


def test_bash_completes_what_is_typed(cli: Cli) -> None:
    script = (
        f"source {COMPLETIONS}/gpucloud.bash; COMP_WORDS=(gpucloud offers --prov); COMP_CWORD=2;"
        ' _gpucloud_completion gpucloud; echo "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), cli.environ["PATH"]])
    environ = {**cli.environ, "PATH": path}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("--provider\n", "")


@pytest.mark.parametrize(("file", "typed"), [("_gpucloud", "2"), ("gpucloud.fish", "--prov")])
def test_the_other_shells_ask_so_that_they_are_answered(cli: Cli, file: str, typed: str) -> None:
    asked = re.search(r"_GPUCLOUD_COMPLETE=(\w+)", (COMPLETIONS / file).read_text())
    assert asked
    words = {"_GPUCLOUD_COMPLETE": asked[1], "COMP_WORDS": "gpucloud offers --prov", "COMP_CWORD": typed}
    assert "--provider" in cli.ok(env=words).out
