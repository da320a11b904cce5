"""``gpucloud plan`` fixes what is to be rented, ``gpucloud apply`` rents that and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpucloud.fleet.planfile import hash_of
from tests.harness.cli import Cli, Finished
from tests.harness.plugins import write_plugin

SIM = ("--provider", "sim", "--gpu", "H100", "--no-push")
DEARER = {"GPUCLOUD_SIM_SCRIPT": "price*1.2"}
A_LITTLE_DEARER = {"GPUCLOUD_SIM_SCRIPT": "price*1.04"}

SHOP = """
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from gpucloud_local import Local

class Shop(Local):
    name = "shop"

    @classmethod
    def configured(cls, settings):
        return bool(settings.table)

    def offers(self, requirements):
        for offer in super().offers(requirements):
            for kind, price in json.loads(Path(self.settings.table["prices"]).read_text()).items():
                yield replace(offer, instance_type=kind, usd_per_hour=Decimal(price))
"""
"""A vendor that rents out this machine at the prices in the file ``providers.shop.prices``."""


class Shop:
    """The vendor, and somebody who plans and applies there."""

    def __init__(self, cli: Cli, folder: Path) -> None:
        write_plugin(folder / "plugins", "shop", SHOP)
        self._cli, self._prices = cli, folder / "prices.json"
        paths = [str(folder / "plugins"), *filter(None, [cli.environ.get("PYTHONPATH")])]
        self._env = {"PYTHONPATH": os.pathsep.join(paths), "GPUCLOUD_SHOP_PRICES": str(self._prices)}

    def sells(self, **prices: str) -> None:
        """From now on only that."""
        self._prices.write_text(json.dumps(prices))

    def __call__(self, *words: str) -> Finished:
        return self._cli(*words, env=self._env)

    def plans(self, *words: str) -> None:
        """Write ``plan.json``."""
        done = self("plan", "--provider", "shop", "--no-push", "-o", "plan.json", *words)
        assert done.code == 0, done.err


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> Shop:
    return Shop(cli, tmp_path)


def plan(cli: Cli, *words: str) -> dict[str, Any]:
    """Write ``plan.json`` and return what is in it."""
    cli.ok("plan", *SIM, "-o", "plan.json", *words)
    return document(cli)


def document(cli: Cli) -> dict[str, Any]:
    found = json.loads((cli.project / "plan.json").read_text())
    assert isinstance(found, dict)
    return found


def change(cli: Cli, **fields: object) -> None:
    """Change the file as somebody does who knows how its hash is made."""
    changed = {**document(cli), **fields}
    (cli.project / "plan.json").write_text(json.dumps({**changed, "hash": hash_of(changed)}))


def clusters(cli: Cli) -> dict[str, str]:
    """The token of the only node of each cluster."""
    return {each["name"]: each["nodes"][0]["token"] for each in cli.ok("ps", "--json").json["clusters"]}


def refused(done: Finished, code: int, said: str) -> None:
    assert done.code == code, done.err
    assert said in done.err
    assert done.err.count("     why: ") == done.err.count("    next: ") == 1


def test_without_a_file_a_plan_is_what_a_dry_run_shows(cli: Cli) -> None:
    shown = cli.ok("plan", *SIM, "--json")
    tried = cli.ok("launch", *SIM, "--dry-run", "--json")
    assert shown.json["schema"] == "gpucloud.plan/1"
    same = ("nodes", "worst_cost", "currency")
    assert [shown.json[key] for key in same] == [tried.json[key] for key in same]
    assert [o["id"] for o in shown.json["offers"]] == [o["id"] for o in tried.json["offers"]]
    assert list(cli.project.iterdir()) == []
    assert clusters(cli) == {}


def test_a_plan_is_applied_by_cron_once_however_often_it_is_applied(cli: Cli) -> None:
    planned = plan(cli, "--max-duration", "2h", "--", "echo from the plan")
    name = planned["request"]["name"]
    assert clusters(cli) == {}
    job = cli.ok("apply", "plan.json", "--yes").out.strip()
    first = clusters(cli)
    assert list(first) == [name]
    assert cli.ok("logs", "-f", job).out == "from the plan\n"
    would = cli.ok("apply", "plan.json", "--dry-run")
    assert f"{name} is up and would be used again" in would.err
    again = cli.ok("apply", "plan.json", "--yes")
    assert f"{name} is up and is used again" in again.err
    assert clusters(cli) == first


def test_nobody_is_taken_to_agree(cli: Cli) -> None:
    plan(cli)
    refused(cli("apply", "plan.json"), 2, "somebody's consent")
    assert clusters(cli) == {}


def test_a_dry_run_of_apply_shows_it_and_does_nothing(cli: Cli) -> None:
    planned = plan(cli, "--nodes", "2", "--max-duration", "2h")
    done = cli.ok("apply", "plan.json", "--dry-run", "--json", env=A_LITTLE_DEARER)
    assert done.json["schema"] == "gpucloud.plan/1"
    assert done.json["nodes"] == 2
    assert [o["id"] for o in done.json["offers"]] == [o["id"] for o in planned["offers"]]
    assert float(done.json["worst_cost"]) == pytest.approx(float(planned["worst_cost"]) * 1.04)
    assert clusters(cli) == {}


def test_the_whole_plan_is_in_the_file(cli: Cli) -> None:
    planned = plan(
        cli,
        *("--name", "x", "--nodes", "2", "--max-duration", "2h", "--max-cost", "11", "--idle", "30m"),
        *("--require-fuse", "A", "--project", "p", "--tag", "team=vision", "--price-tolerance", "10%"),
        *("--env", "A=b", "--secret", "TOKEN", "--output", "model.pt", "--ready-timeout", "90s"),
        *("--expires", "1h", "--", "python", "train.py"),
    )
    asked = planned["request"]
    assert (asked["name"], asked["nodes"], asked["fuse"]) == ("x", 2, "A")
    assert (asked["max_duration"], asked["max_cost"], asked["idle"]) == ("PT2H", "11", "PT30M")
    assert (asked["labels"]["project"], asked["labels"]["tags"]) == ("p", {"team": "vision"})
    assert asked["requirements"]["gpus"][0]["gpu"]["chip"] == "H100"
    assert planned["job"] == {
        "command": "python train.py",
        "workdir": None,
        "outputs": ["model.pt"],
        "envs": {"A": "b"},
        "secrets": ["TOKEN"],
    }
    assert planned["settings"] == {"launch.ready_timeout": "90s"}
    assert (planned["price_tolerance"], planned["providers"]) == ("0.1", ["sim"])
    assert float(planned["worst_cost"]) <= 11
    cli.ok("apply", "plan.json", "--dry-run", env={"TOKEN": "tell-nobody"})


def test_a_hyphen_writes_the_plan_and_nothing_else_to_stdout(cli: Cli) -> None:
    done = cli.ok("plan", *SIM, "-o", "-")
    assert done.json["schema"] == "gpucloud.plan-file/1"
    (cli.project / "plan.json").write_text(done.out)
    cli.ok("apply", "plan.json", "--dry-run")


def test_with_json_the_plan_is_shown_once_it_is_written(cli: Cli) -> None:
    words = ("plan", *SIM, "--json", "-o", "plan.json")
    shown = cli.ok(*words).json
    assert shown["schema"] == "gpucloud.plan/1"
    assert [o["id"] for o in shown["offers"]] == [o["id"] for o in document(cli)["offers"]]
    again = cli(*words)
    assert (again.json["schema"], again.json["code"]) == ("gpucloud.error/1", 2)


def test_a_plan_is_not_overwritten_unasked(cli: Cli) -> None:
    before = plan(cli)
    refused(cli("plan", *SIM, "-o", "plan.json"), 2, "plan.json is there already")
    assert document(cli) == before
    assert plan(cli, "--force") != before


def test_a_secret_is_never_in_the_file_and_comes_from_where_it_is_applied(cli: Cli) -> None:
    secret = {"TOKEN": "correct-horse-battery-staple"}
    cli.ok("plan", *SIM, "--secret", "TOKEN", "-o", "plan.json", "--", 'test -n "$TOKEN"', env=secret)
    assert secret["TOKEN"] not in (cli.project / "plan.json").read_text()
    refused(cli("apply", "plan.json", "--yes"), 2, "the variable TOKEN is not set here")
    assert clusters(cli) == {}
    job = cli.ok("apply", "plan.json", "--yes", env=secret).out.strip()
    assert cli("logs", "-f", job).code == 0


@pytest.mark.parametrize(
    "words", [("--env", "A=correct-horse-battery-staple"), ("--", "login correct-horse-battery-staple")]
)
def test_a_secret_in_a_command_or_a_variable_is_refused(cli: Cli, words: tuple[str, ...]) -> None:
    secret = {"TOKEN": "correct-horse-battery-staple"}
    done = cli("plan", *SIM, "--secret", "TOKEN", "-o", "plan.json", *words, env=secret)
    refused(done, 2, "a secret would be written into the plan")
    assert secret["TOKEN"] not in done.err
    assert list(cli.project.iterdir()) == []


def test_a_variable_that_sounds_like_a_secret_is_pointed_at(cli: Cli) -> None:
    done = cli.ok("plan", *SIM, "--env", "HF_TOKEN=x", "-o", "plan.json")
    assert "--secret HF_TOKEN would keep it out" in done.err


def test_one_edited_byte_is_refused(cli: Cli) -> None:
    plan(cli, "--max-cost", "10")
    path = cli.project / "plan.json"
    path.write_text(path.read_text().replace('"max_cost": "10"', '"max_cost": "90"'))
    refused(cli("apply", "plan.json", "--yes"), 2, "plan.json was edited")
    assert clusters(cli) == {}


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"schema": "gpucloud.plan-file/2"}, 2, "another version"),
        ({"schema": "gpucloud.plan/1"}, 2, "not a plan"),
        ({"colour": "red"}, 2, "makes no sense"),
        ({"settings": {"budget.day": "none"}}, 2, "makes no sense"),
        ({"expires_at": "2026-01-02T03:04:05Z"}, 83, "has expired"),
    ],
)
def test_what_cannot_be_applied_is_refused(cli: Cli, fields: dict[str, object], code: int, said: str) -> None:
    plan(cli)
    change(cli, **fields)
    refused(cli("apply", "plan.json", "--yes"), code, said)
    assert clusters(cli) == {}


def test_a_plan_that_is_not_there_or_never_good_is_refused(cli: Cli) -> None:
    refused(cli("apply", "plan.json", "--yes"), 2, "plan.json cannot be read")
    refused(cli("plan", *SIM, "-o", "plan.json", "--expires", "0s"), 2, "--expires")
    refused(cli("plan", *SIM, "-o", "plan.json", "--expires", "soon"), 2, "--expires")


def test_a_market_that_has_become_dearer_is_82(cli: Cli) -> None:
    plan(cli)
    refused(cli("apply", "plan.json", "--yes", env=DEARER), 82, "has become dearer")
    assert clusters(cli) == {}


def test_what_it_costs_by_now_is_in_the_books_when_that_is_tolerated(cli: Cli) -> None:
    planned = float(plan(cli, "--name", "x")["offers"][0]["usd_per_hour"])
    cli.ok("apply", "plan.json", "--yes", env=A_LITTLE_DEARER)
    (cluster,) = cli.ok("ps", "--json").json["clusters"]
    assert float(cluster["nodes"][0]["usd_per_hour"]) == pytest.approx(planned * 1.04)


def test_the_next_planned_offer_is_tried_when_the_first_is_out_of_stock(cli: Cli) -> None:
    planned = plan(cli, "--name", "x")
    done = cli.ok("apply", "plan.json", "--yes", env={"GPUCLOUD_SIM_SCRIPT": "stockout=1"})
    assert f"refused  {planned['offers'][0]['id']}" in done.err
    assert f"rented  {planned['offers'][1]['id']}" in done.err


def test_only_what_was_planned_is_rented_and_what_was_passed_over_is_told(cli: Cli, shop: Shop) -> None:
    shop.sells(small="1", middle="2", large="2.50")
    shop.plans("--name", "x")
    shop.sells(bargain="0.10", small="1.06", middle="2.09")
    done = shop("apply", "plan.json", "--yes")
    assert done.code == 0, done.err
    assert "moved  shop/small/local/on-demand was $1 an hour and is $1.06 now" in done.err
    (cluster,) = cli.ok("ps", "--json").json["clusters"]
    assert cluster["nodes"][0]["instance_type"] == "middle"


def test_what_is_gone_or_dearer_is_told_apart(cli: Cli, shop: Shop) -> None:
    shop.sells(small="1", middle="2")
    shop.plans()
    shop.sells(bargain="0.10")
    refused(shop("apply", "plan.json", "--yes"), 80, "nothing that was planned can be had now")
    shop.sells(bargain="0.10", middle="2.20")
    refused(shop("apply", "plan.json", "--yes"), 82, "was $2 an hour and is $2.2 now")
    assert clusters(cli) == {}


def test_the_folder_is_that_of_where_it_is_applied(cli: Cli) -> None:
    (cli.project / "code").mkdir()
    (cli.project / "code" / "hello.txt").write_text("hello\n")
    cli.ok("plan", "--provider", "sim", "--workdir", "code", "-o", "plan.json", "--", "cat hello.txt")
    assert document(cli)["job"]["workdir"] == "code"
    done = cli.ok("apply", "plan.json", "--yes")
    assert f"cat hello.txt, in {cli.project / 'code'}" in done.err
    assert cli.ok("logs", "-f", done.out.strip()).out == "hello\n"
