"""What was seen of prices, and waiting for one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.cli.exit_codes import ExitCode
from tests.harness.cli import Cli

SIM = ("--provider", "sim")


def test_what_offers_told_is_in_the_history(cli: Cli) -> None:
    cli.ok("offers", *SIM)
    rows = [line.split("\t") for line in cli.ok("history", "H100").out.splitlines()]
    assert {(row[0], row[1], row[2]) for row in rows} == {
        ("H100-SXM-80", "sim", "on-demand"),
        ("H100-SXM-80", "sim", "spot"),
    }
    offers = cli.ok("offers", "H100", *SIM, "--json").json["offers"]
    lines = cli.ok("history", "H100", "--json").json["history"]
    single = [line["quotes"][-1]["usd_per_hour"] for line in lines if line["gpu_count"] == 1]
    assert sorted(single) == sorted(offer["usd_per_hour"] for offer in offers)
    assert len(cli.ok("history", "--market", "spot", "--json").json["history"]) < len(
        cli.ok("history", "--json").json["history"]
    )


def test_a_price_that_changes_is_kept_with_the_one_before(cli: Cli) -> None:
    cli.ok("offers", *SIM, "--live")
    cli.ok("offers", "--provider", "sim:price*2", "--live")
    quotes = cli.ok("history", "RTX4090", "--market", "on-demand", "--json").json["history"][0]["quotes"]
    prices = [float(quote["usd_per_hour"]) for quote in quotes]
    assert prices[-1] == pytest.approx(prices[0] * 2)


def test_a_chart_is_drawn_into_a_file(cli: Cli) -> None:
    cli.ok("offers", *SIM)
    cli.ok("history", "--svg", "prices.svg")
    chart = ElementTree.parse(cli.project / "prices.svg")
    texts = [element.text for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert "H100-SXM-80 sim spot" in texts
    paths = [element.get("d") for element in chart.iter("{http://www.w3.org/2000/svg}path")]
    assert all(paths)
    done = cli("history", "--svg", "no/such/folder.svg")
    assert done.code == ExitCode.USAGE


def test_nothing_seen_is_3_and_says_how_to_see_something(cli: Cli) -> None:
    done = cli("history")
    assert done.code == ExitCode.NOTHING_MATCHED
    assert "gpucloud offers" in done.err


def test_old_quotes_are_forgotten_only_with_consent(cli: Cli) -> None:
    cli.ok("offers", *SIM)
    assert cli("history", "prune", "--older-than", "1d").code == ExitCode.USAGE
    assert cli.ok("history", "prune", "--older-than", "1d", "--yes").out == "0 quotes forgotten\n"
    assert cli.ok("history", "prune", "--older-than", "1d", "--yes", "--json").json["quotes"] == 0


def test_what_can_be_had_at_the_price_is_found(cli: Cli) -> None:
    done = cli("watch", "--gpu", "H100", "--under", "100", "--once", *SIM, "--json")
    assert done.code == 0
    found = done.json["offers"]
    assert {offer["gpu"] for offer in found} == {"H100-SXM-80"}
    assert [float(offer["usd_per_hour"]) for offer in found] == sorted(
        float(offer["usd_per_hour"]) for offer in found
    )


def test_what_cannot_be_had_is_80_and_a_dead_market_is_5(cli: Cli) -> None:
    done = cli("watch", "--gpu", "H100", "--under", "0.01", "--once", *SIM)
    assert done.code == ExitCode.NO_CAPACITY
    assert "next: " in done.err
    words = ("watch", "--gpu", "H100", "--once", "--provider", "sim:api500=99")
    assert cli(*words, env={"GPUCLOUD_OFFERS_TIMEOUT": "1s"}).code == ExitCode.UNREACHABLE


def test_it_is_asked_again_until_the_price_falls(cli: Cli) -> None:
    first = float(cli.ok("offers", "RTX4090", *SIM, "--json").json["offers"][0]["usd_per_hour"])
    words = ("--gpu", "RTX4090", "--under", f"{first * 0.6:.6f}", "--every", "1s", "--for", "50s", "--json")
    done = cli("watch", *words, "--provider", "sim:price*0.5@2s")
    assert done.code == 0, done.err
    assert float(done.json["offers"][0]["usd_per_hour"]) == pytest.approx(first * 0.5)


def test_a_command_gets_the_best_offer_and_its_status_is_returned(cli: Cli) -> None:
    command = "echo $GPUCLOUD_OFFER_ID $GPUCLOUD_OFFER_USD_PER_HOUR >best; exit 7"
    done = cli("watch", "--gpu", "H100", "--once", *SIM, "--json", "--exec", command)
    assert done.code == 7
    best = json.loads(done.out)["offers"][0]
    assert (cli.project / "best").read_text().split() == [best["id"], best["usd_per_hour"]]


def test_what_is_found_is_posted(cli: Cli, httpserver: HTTPServer) -> None:
    httpserver.expect_oneshot_request("/found", method="POST").respond_with_data("thanks")
    words = ("watch", "--gpu", "H100", "--once", *SIM, "--notify")
    assert cli(*words, httpserver.url_for("/found")).code == 0
    (request, _) = httpserver.log[0]
    assert request.json["schema"] == "gpucloud.offers/1"
    assert request.json["offers"][0]["gpu"] == "H100-SXM-80"
    done = cli(*words, httpserver.url_for("/refused"))
    assert done.code == ExitCode.UNREACHABLE
    assert "H100-SXM-80" in done.out
    assert cli(*words, "mail:me").code == ExitCode.USAGE


def test_a_public_catalogue_is_read_again_for_a_provider_that_is_named(
    cli: Cli, httpserver: HTTPServer
) -> None:
    plan = {
        "instance_type": "1H100.80S.30V",
        "gpu": {"description": "1x H100 SXM5 80GB", "number_of_gpus": 1},
        "gpu_memory": {"size_in_gigabytes": 80},
        "price_per_hour": "2.29",
    }
    httpserver.expect_request("/v1/instance-types").respond_with_json([plan])
    environ = {"GPUCLOUD_VERDA_CATALOG_URL": httpserver.url_for("")}
    words = ("watch", "--gpu", "H100", "--once", "--provider", "verda", "--json", "--under")
    found = cli(*words, "2.50", env=environ)
    assert found.code == 0, found.err
    assert found.json["offers"][0]["usd_per_hour"] == "2.29"
    assert cli(*words, "2.00", env=environ).code == ExitCode.NO_CAPACITY
    httpserver.clear()
    httpserver.expect_request("/v1/instance-types").respond_with_data("go away", status=403)
    assert cli(*words, "2.50", env=environ).code == ExitCode.UNREACHABLE


def test_past_prices_are_taken_over_only_from_who_tells_them(cli: Cli) -> None:
    done = cli("history", "import", "local")
    assert done.code == ExitCode.NOTHING_MATCHED
    assert "local tells no past prices" in done.err
    without = cli("history", "import", "--json", env={"AWS_EC2_METADATA_DISABLED": "true"})
    assert without.code == ExitCode.CREDENTIALS
    assert {failure["provider"] for failure in without.json["failures"]} == {"aws", "gcp"}


def test_a_chart_of_one_moment_is_a_chart(cli: Cli, tmp_path: Path) -> None:
    cli.ok("offers", *SIM)
    cli.ok("history", "H100", "--since", "1m", "--svg", str(tmp_path / "one.svg"))
    assert (tmp_path / "one.svg").read_text().startswith("<svg")
