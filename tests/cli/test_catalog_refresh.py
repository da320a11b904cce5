"""Public catalogues, read from a server on loopback that speaks as a vendor does."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.cli.exit_codes import ExitCode
from tests.harness.catalogs import answer
from tests.harness.cli import Cli

TYPES: list[dict[str, Any]] = [
    {
        "instance_type": "1H100.80S.30V",
        "gpu": {"description": "1x H100 SXM5 80GB", "number_of_gpus": 1},
        "gpu_memory": {"size_in_gigabytes": 80},
        "price_per_hour": "2.29",
        "spot_price": "0.80",
    },
    {
        "instance_type": "CPU.4V.16G",
        "gpu": {"description": "", "number_of_gpus": 0},
        "price_per_hour": "0.02",
    },
]


@pytest.fixture
def verda(cli: Cli, httpserver: HTTPServer) -> Iterator[dict[str, str]]:
    httpserver.expect_request("/v1/instance-types").respond_with_handler(answer(TYPES))
    yield {"GPUCLOUD_VERDA_CATALOG_URL": httpserver.url_for("")}


def test_what_is_published_is_shown_with_its_age_and_never_launched(cli: Cli, verda: dict[str, str]) -> None:
    assert cli.ok("catalog", "refresh", "verda", env=verda).out == "verda\t-\t2\t2\n"
    offers = cli.ok("offers", "H100", "--provider", "verda", "--json", env=verda).json["offers"]
    assert [(offer["usd_per_hour"], offer["market"], offer["confidence"]) for offer in offers] == [
        ("0.8", "spot", "published"),
        ("2.29", "on-demand", "published"),
    ]
    assert [offer["availability"] for offer in offers] == ["unknown", "unknown"]
    refused = cli("launch", "--provider", "verda", "--no-push", "--yes", env=verda)
    assert refused.code == ExitCode.CREDENTIALS
    assert "gpucloud login verda" in refused.err


def test_what_did_not_change_is_not_read_again(
    cli: Cli, verda: dict[str, str], httpserver: HTTPServer
) -> None:
    cli.ok("catalog", "refresh", "verda", env=verda)
    again = cli.ok("catalog", "refresh", "verda", "--json", env=verda).json
    (part,) = again["parts"]
    assert (part["unchanged"], part["changed"], part["offers"]) == (True, 0, None)
    assert [reply.status_code for _, reply in httpserver.log] == [200, 304]


def test_a_provider_that_fails_is_told_and_what_it_said_before_stays(
    cli: Cli, verda: dict[str, str], httpserver: HTTPServer
) -> None:
    cli.ok("catalog", "refresh", "verda", env=verda)
    httpserver.clear()
    httpserver.expect_request("/v1/instance-types").respond_with_data("<html>", status=200)
    failed = cli("catalog", "refresh", "verda", "--json", env=verda)
    assert failed.code == ExitCode.UNREACHABLE
    assert [failure["provider"] for failure in failed.json["failures"]] == ["verda"]
    assert "verda: " in failed.err
    assert len(cli.ok("offers", "H100", "--provider", "verda", "--json").json["offers"]) == 2


def test_a_refresh_is_in_the_history(cli: Cli, verda: dict[str, str]) -> None:
    cli.ok("catalog", "refresh", "verda", env=verda)
    lines = cli.ok("history", "--provider", "verda", "--json").json["history"]
    assert sorted(line["quotes"][0]["usd_per_hour"] for line in lines) == ["0.8", "2.29"]


def test_prices_of_a_provider_are_no_longer_those_of_the_list(cli: Cli, verda: dict[str, str]) -> None:
    before = cli.ok("offers", "--provider", "verda", "--offline", "--json").json["offers"]
    assert "published" not in {offer["confidence"] for offer in before}
    cli.ok("catalog", "refresh", "verda", env=verda)
    after = cli.ok("offers", "--provider", "verda", "--offline", "--json").json["offers"]
    assert {(offer["provider"], offer["confidence"]) for offer in after} == {("verda", "published")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("refresh", "nosuch"), "there is no provider named 'nosuch'"),
        (("refresh", "local"), "local publishes no prices"),
        (("refresh", "azure", "--region", "Mars!"), "azure"),
    ],
)
def test_what_is_not_published_is_said(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli("catalog", *words)
    assert done.code in {ExitCode.NOTHING_MATCHED, ExitCode.UNREACHABLE}
    assert said in done.err


def test_the_providers_that_only_publish_say_so(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli.ok("providers", "--json").json["providers"]}
    assert rows["brev"]["prices_only"]
    assert rows["brev"]["public_catalog"]
    assert not rows["local"]["prices_only"]
    assert "\tprices\t" in cli.ok("providers").out
    refused = cli("launch", "--provider", "brev", "--no-push", "--yes")
    assert refused.code == ExitCode.NOTHING_MATCHED
    assert "nothing can be rented at brev yet" in refused.err


def test_an_interrupted_refresh_is_130_and_keeps_what_was_read(
    cli: Cli, verda: dict[str, str], httpserver: HTTPServer
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def hang(_: Request) -> Response:
        asked.set()
        gone.wait(60)
        return Response("{}")

    httpserver.expect_request("/api/v1/instance-types/list").respond_with_handler(hang)
    environ = verda | {"GPUCLOUD_CLOUDRIFT_CATALOG_URL": httpserver.url_for("")}
    cli.ok("catalog", "refresh", "verda", env=environ)
    reading = cli.start("catalog", "refresh", "cloudrift", env=environ)
    assert asked.wait(60)
    reading.send_signal(signal.SIGINT)
    reading.communicate(timeout=60)
    assert reading.returncode == ExitCode.BY_PERSON
    gone.set()
    assert len(cli.ok("offers", "--provider", "verda", "--json").json["offers"]) == 2


def test_a_converted_price_says_so_with_rate_and_day(cli: Cli, httpserver: HTTPServer) -> None:
    in_euros = {**TYPES[0], "currency": "eur"}
    httpserver.expect_request("/v1/instance-types").respond_with_json([in_euros])
    environ = {"GPUCLOUD_VERDA_CATALOG_URL": httpserver.url_for("")}
    cli.ok("catalog", "refresh", "verda", env=environ)
    offer = cli.ok("offers", "--provider", "verda", "--json").json["offers"][0]
    assert (offer["currency"], offer["amount"]) == ("EUR", "0.8")
    shown = cli.ok("offers", "--provider", "verda", "--columns", "usd_per_hour", "--limit", "1").out
    assert shown == f"~{Decimal(offer['usd_per_hour']):.2f}\n"
    told = dict(line.split("\t") for line in cli.ok("why", offer["id"]).out.splitlines())
    assert re.fullmatch(r"1 EUR is [0-9.]+ USD \(.+, 20[0-9]{2}-[0-9]{2}-[0-9]{2}\)", told["rate"])
    rates = {"GPUCLOUD_CURRENCY_RATES": "EUR=2.5"}
    cli.ok("catalog", "refresh", "verda", env=environ | rates)
    dearer = cli.ok("offers", "--provider", "verda", "--json", env=rates).json["offers"][0]
    assert dearer["usd_per_hour"] == "2"
    told = dict(line.split("\t") for line in cli.ok("why", offer["id"], env=rates).out.splitlines())
    assert told["rate"] == "1 EUR is 2.5 USD (config)"
