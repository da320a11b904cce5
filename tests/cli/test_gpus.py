"""The GPU table and what fits a job, with the prices that are remembered."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpucloud.catalog import prices
from gpucloud.catalog.cache import Cache
from gpucloud.catalog.gpus import table
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from tests.harness.adapters import an_offer
from tests.harness.cli import Cli

H100 = Gpu("H100", 80, "SXM")


def remember(cli: Cli, *offers: Offer, provider: str = "acme") -> None:
    """Fill the cache as a provider's answer of three hours ago would."""
    at = utcnow() - timedelta(hours=3)
    cli.data.mkdir(parents=True, exist_ok=True)
    with Cache(cli.data / "market.db") as cache:
        cache.put(provider, offers, name=f"{provider}'s list", at=at)


def offer(price: str, **changes: Any) -> Offer:
    at = utcnow() - timedelta(hours=3)
    plain = {"gpu": H100, "gpu_count": 1, "usd_per_hour": Decimal(price), "as_of": at, "instance_type": price}
    return an_offer(**{**plain, **changes})


def rows(text: str) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines() if "\t" in line}


def live_prices(gpu: Any) -> dict[str, str]:
    return {o["market"]: o["usd_per_gpu_hour"] for o in gpu["cheapest"] if o["confidence"] == "live"}


def test_the_table_is_there_before_anything_is_known(cli: Cli) -> None:
    done = cli.ok("gpus")
    shown = rows(done.out)
    assert len(shown) == len(done.out.splitlines())
    assert {str(row.gpu) for row in table()} <= set(shown)
    assert shown["H100-SXM-80"][:7] == ["nvidia", "80", "3350", "989", "1979", "700", "9.0"]
    assert shown["K80"] == ["nvidia", "-", "-", "-", "-", "-", "3.7", *"----"]
    assert done.err == ""


def test_listed_prices_are_shown_with_their_age(cli: Cli) -> None:
    amount, provider, age = rows(cli.ok("gpus", "H100-SXM").out)["H100-SXM-80"][7].split()
    listed = [offer for offer in prices.prices() if offer.gpu == H100 and offer.market is Market.ON_DEMAND]
    assert (provider, amount) in {(o.provider, f"{o.usd_per_gpu_hour:.2f}") for o in listed}
    assert age.endswith("d")


def test_json_has_the_source_and_the_day_of_every_row(cli: Cli) -> None:
    done = cli.ok("gpus", "--json")
    assert done.json["schema"] == "gpucloud.gpus/1"
    assert done.json["failures"] == []
    known = {str(row.gpu) for row in table()}
    assert all(gpu["source"] and gpu["as_of"] for gpu in done.json["gpus"] if gpu["gpu"] in known)
    (found,) = [gpu for gpu in done.json["gpus"] if gpu["gpu"] == "H100-SXM-80"]
    assert found["bandwidth_gb_s"] == "3350"
    assert (found["memory_gib"], found["form_factor"], found["confidence"]) == (80, "SXM", "A")
    (old,) = [gpu for gpu in done.json["gpus"] if gpu["gpu"] == "K80"]
    assert (old["memory_gib"], old["bandwidth_gb_s"], old["power_w"]) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H100", {"H100-PCIe-80", "H100-SXM-80", "H100-NVL-94", "H100"}),
        ("gpu_8x_a100_80gb_sxm4", {"A100-SXM-80", "A100-80"}),
        ("NVIDIA GeForce RTX 4090", {"RTX4090-24"}),
        ("b200-192", {"B200-SXM-180"}),
        ("k80-12", {"K80"}),
    ],
)
def test_a_name_is_understood_as_any_vendor_spells_it(cli: Cli, name: str, found: set[str]) -> None:
    assert set(rows(cli.ok("gpus", name).out)) == found


@pytest.mark.parametrize(
    ("name", "hint"),
    [("H10", "did you mean 'H100'?"), ("banana", "gpucloud gpus")],
)
def test_an_unknown_name_gets_a_suggestion(cli: Cli, name: str, hint: str) -> None:
    done = cli("gpus", name)
    assert done.code == 3
    assert done.out == ""
    *_, what, why, after = done.err.splitlines()
    assert what == f"gpucloud: no GPU {name!r} is known"
    assert why.strip().startswith("why: ")
    assert after.strip() == f"next: {hint}"
    assert cli("gpus", name, "--json").json["name"] == "nothing-matched"


def test_the_cheapest_offer_of_each_market_is_shown_with_its_provider_and_age(cli: Cli) -> None:
    remember(
        cli,
        offer("3.00"),
        offer("20.00", gpu_count=8),
        offer("1.25", market=Market.SPOT),
        offer("0.10", availability=Availability.UNAVAILABLE),
        offer("0.11", availability=Availability.NO_QUOTA),
        offer("0.12", gpu=None, gpu_count=0),
    )
    remember(cli, offer("2.75", provider="other"), provider="other")
    done = cli.ok("gpus", "H100-SXM")
    assert rows(done.out)["H100-SXM-80"][-4:-2] == ["2.50 acme 3h", "1.25 acme 3h"]
    assert done.err == ""
    found = next(g for g in cli.ok("gpus", "--json").json["gpus"] if g["gpu"] == "H100-SXM-80")
    assert live_prices(found) == {"on-demand": "2.5", "spot": "1.25"}
    assert found["cheapest"][0]["source"] == "price list"
    assert found["cheapest"][0]["usd_per_hour"] == "20"
    assert found["cheapest"][0]["as_of"].endswith("Z")


def test_offers_are_put_to_the_row_that_they_mean_and_others_are_still_seen(cli: Cli) -> None:
    remember(
        cli,
        offer("4", gpu=Gpu("B200", 192, "SXM")),
        offer("5", gpu=Gpu("H100", 80)),
        offer("6", gpu=Gpu("Newchip9", 500)),
    )
    found = {gpu["gpu"]: gpu for gpu in cli.ok("gpus", "--json").json["gpus"]}
    assert live_prices(found["B200-SXM-180"]) == {"on-demand": "4"}
    assert live_prices(found["H100-SXM-80"]) == {}
    for name, price in (("H100-80", "5"), ("Newchip9-500", "6")):
        assert live_prices(found[name]) == {"on-demand": price}
        assert (found[name]["source"], found[name]["vendor"]) == (None, None)
    assert {"H100-PCIe-80", "H100-SXM-80", "H100-80"} <= set(rows(cli.ok("gpus", "h100 80gb").out))


def test_a_cache_that_cannot_be_read_leaves_the_listed_prices(cli: Cli) -> None:
    (cli.data / "market.db").mkdir(parents=True)
    done = cli.ok("gpus", "H100-SXM")
    assert "the offer cache cannot be used" in done.err
    assert rows(done.out)["H100-SXM-80"][7].endswith("d")


def test_what_fits_is_suggested_with_the_arithmetic(cli: Cli) -> None:
    remember(cli, offer("3"), offer("20", gpu_count=8), offer("9", gpu_count=2, market=Market.SPOT))
    done = cli.ok("suggest", "--model-params", "8B", "--task", "full", "--limit", "100")
    first, *_ = done.out.splitlines()
    assert first.startswith("model: 8B parameters")
    assert "training: 8B x 16 bytes (weights 2, gradients 2, fp32 copy 4, Adam 8) = 119.3 GiB" in done.out
    assert "= 123.6 GiB on one GPU, an estimate" in done.out
    shown = rows(done.out)
    # Two have 160 GiB; one H100 has too little, however cheap it is.
    assert shown["H100-SXM-80"][:2] == ["2", "160"]
    assert shown["H100-SXM-80"][3] == "9.00 acme 3h"
    assert "K80" not in shown
    assert done.err == ""


def test_suggestions_as_json(cli: Cli) -> None:
    remember(cli, offer("3"))
    done = cli.ok("suggest", "--vram", "41GB", "--json", "--limit", "200").json
    assert list(done) == [
        *("schema", "suggestions", "vram_gib", "each_further_gpu_gib", "arithmetic", "failures"),
    ]
    assert (done["schema"], done["vram_gib"]) == ("gpucloud.suggest/1", "41")
    assert done["arithmetic"] == ["need: 41 GiB as stated, on one GPU or on several together"]
    found = {each["gpu"]: each for each in done["suggestions"]}
    assert (found["H100-SXM-80"]["count"], live_prices(found["H100-SXM-80"])) == (1, {"on-demand": "3"})
    assert (found["RTX4090-24"]["count"], found["RTX4090-24"]["memory_gib"]) == (2, 48)
    assert done["suggestions"][0]["memory_gib"] == 48


def test_only_the_best_are_shown_and_it_says_so(cli: Cli) -> None:
    done = cli.ok("suggest", "--vram", "40GB", "--limit", "3")
    assert len(rows(done.out)) == 3
    assert "more sets have enough memory: --limit " in done.err


def test_what_fits_nowhere_is_said_with_the_arithmetic(cli: Cli) -> None:
    done = cli("suggest", "--model-params", "1.5T", "--task", "full")
    assert done.code == 3
    assert "training: 1.5T x 16 bytes" in done.out
    assert [line.split(":")[0].strip() for line in done.err.splitlines()] == ["gpucloud", "why", "next"]
    assert cli("suggest", "--model-params", "1.5T", "--task", "full", "--json").json["code"] == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "neither was given"),
        (["--vram", "40GB", "--model-params", "8B"], "both were given"),
        (["--vram", "much"], "write 40GB"),
        (["--vram", "0GB"], "no need"),
        (["--model-params", "8x7B", "--task", "lora"], "write 8B, 70B, 1.5T or 350M"),
        (["--model-params", "8B"], "--task qlora"),
        (["--model-params", "8B", "--task", "dream"], "qlora, lora, full, infer"),
        (["--model-params", "8B", "--task", "full", "--bits", "4"], "16 or 32 bits"),
        (["--model-params", "8B", "--task", "full", "--batch", "0"], "--batch"),
    ],
)
def test_bad_input_is_answered_in_three_lines(cli: Cli, words: list[str], part: str) -> None:
    done = cli("suggest", *words)
    assert done.code == 2
    assert done.out == ""
    assert part in done.err
    assert [line.split(":")[0].strip() for line in done.err.splitlines()] == ["gpucloud", "why", "next"]


@pytest.mark.parametrize("name", ["gpus", "suggest"])
def test_the_commands_show_an_example(cli: Cli, name: str) -> None:
    assert f"Example: gpucloud {name}" in cli.ok(name, "--help").out
