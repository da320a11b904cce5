"""The prices that Amazon publishes, as offers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, ConfigError, NotFound, Rejected, Unreachable
from gpucloud.http import untold
from gpucloud.model import Availability, Gpu, Market, Offer
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_aws import Aws
from tests.harness.catalogs import an_adapter, edition
from tests.providers.aws.documents import (
    ADVISOR,
    C6I,
    COLUMNS,
    G5,
    INF2,
    P5,
    PREAMBLE,
    PUBLISHED,
    REGIONS,
    SPOT,
    Amazon,
    advisor,
    index,
    line,
    list_of,
    price_list,
    row,
    spot,
    spot_feed,
)

MakeAws = Callable[..., Aws]
EAST = "us-east-1"


@pytest.fixture
def amazon(httpserver: HTTPServer) -> Amazon:
    """A server that has two instance types with GPUs in us-east-1, one of them on the Spot market."""
    amazon = Amazon()
    amazon.prices(row(P5), row(G5), row(C6I))
    amazon.bodies[SPOT] = spot(g5_xlarge="0.3961", c6i_large="0.0310")
    amazon.bodies[ADVISOR] = advisor(g5_xlarge=3, p5_48xlarge=0)
    httpserver.expect_request(re.compile(".*")).respond_with_handler(amazon.answer)
    return amazon


@pytest.fixture
def make_aws(amazon: Amazon, httpserver: HTTPServer, tmp_path: Path) -> MakeAws:
    """The adapter before that server, which never waits for real."""
    url = httpserver.url_for("")
    return partial(an_adapter, Aws, httpserver, tmp_path, spot_url=url, advisor_url=url)


@pytest.fixture
def aws(make_aws: MakeAws) -> Aws:
    return make_aws()


def on_demand(aws: Aws) -> list[Offer]:
    return [offer for offer in edition(aws, EAST).offers if offer.market is Market.ON_DEMAND]


def in_spot(aws: Aws) -> list[Offer]:
    return [offer for offer in edition(aws, EAST).offers if offer.market is Market.SPOT]


def only(offers: list[Offer]) -> Offer:
    (offer,) = offers
    return offer


class TestAwsCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, amazon: Amazon, aws: Aws) -> Aws:
        for region in aws.catalog_parts(()):
            amazon.prices(row(P5, Region_Code=region), row(G5, Region_Code=region), region=region)
        return aws

    def test_the_usual_regions_have_a_validator_and_spot_prices(
        self, catalog: Aws, published: list[Offer]
    ) -> None:
        assert edition(catalog, EAST).validator is not None
        assert {offer.market for offer in published} == {Market.ON_DEMAND, Market.SPOT}


# parts


def test_the_usual_regions_need_no_request(amazon: Amazon, aws: Aws) -> None:
    assert aws.catalog_parts(()) == ("us-east-1", "us-east-2", "us-west-2", "eu-west-1")
    assert amazon.told == []


@pytest.fixture
def regions(amazon: Amazon) -> None:
    amazon.bodies[REGIONS] = index(
        "us-east-1", "us-east-1-atl-1", "us-east-2", "us-west-2", "eu-west-1", "eu-north-1", "eusc-de-east-1"
    )


@pytest.mark.usefixtures("regions")
@pytest.mark.parametrize(
    ("named", "parts"),
    [
        (["us-east-2"], ["us-east-2"]),
        (["us-east-1"], ["us-east-1"]),
        (["eu"], ["eu-north-1", "eu-west-1"]),
        (["us-east"], ["us-east-1", "us-east-1-atl-1", "us-east-2"]),
        (["EU-North-1 "], ["eu-north-1"]),
        (["eu-west-1", "eu"], ["eu-west-1", "eu-north-1"]),
    ],
)
def test_regions_are_named_whole_or_by_how_they_begin(aws: Aws, named: list[str], parts: list[str]) -> None:
    assert list(aws.catalog_parts(named)) == parts


@pytest.mark.usefixtures("regions")
def test_an_unknown_region_is_told_with_what_is_like_it(aws: Aws) -> None:
    with pytest.raises(NotFound, match="no region us-esat-1") as caught:
        aws.catalog_parts(["us-east-2", "us-esat-1"])
    assert "us-east-1" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        aws.catalog_parts(["moon"])
    assert "eu-north-1" in caught.value.hint


@pytest.mark.usefixtures("regions")
@pytest.mark.parametrize("configured", ["us-west-2, eu", ["us-west-2", "eu"]])
def test_the_settings_may_name_other_usual_regions(make_aws: MakeAws, configured: Any) -> None:
    aws = make_aws(catalog_regions=configured)
    assert list(aws.catalog_parts(())) == ["us-west-2", "eu-north-1", "eu-west-1"]
    assert list(aws.catalog_parts(["us-east-2"])) == ["us-east-2"]


@pytest.mark.usefixtures("regions")
def test_a_region_of_the_settings_is_looked_at_too(make_aws: MakeAws) -> None:
    with pytest.raises(NotFound, match="us-west-9"):
        make_aws(catalog_regions="us-west-9").catalog_parts(())


@pytest.mark.parametrize("configured", [7, [7]])
def test_regions_that_are_no_names_are_a_mistake_in_the_settings(make_aws: MakeAws, configured: Any) -> None:
    with pytest.raises(ConfigError, match=r"providers\.aws\.catalog_regions"):
        make_aws(catalog_regions=configured).catalog_parts(())


@pytest.mark.parametrize("body", [b"{}", b'{"regions": []}', b'{"regions": {}}', b"<html>"])
def test_a_list_of_regions_that_makes_no_sense(amazon: Amazon, aws: Aws, body: bytes) -> None:
    amazon.bodies[REGIONS] = body
    with pytest.raises(BadReply):
        aws.catalog_parts(["eu"])


# on demand


def test_a_line_is_an_offer_of_the_whole_instance(aws: Aws) -> None:
    p5, g5 = on_demand(aws)
    assert p5 == Offer(
        provider="aws",
        instance_type="p5.48xlarge",
        market=Market.ON_DEMAND,
        usd_per_hour=Decimal("55.04"),
        amount=Decimal("55.0400000000"),
        as_of=PUBLISHED,
        source="localhost",
        gpu=Gpu("H100", 80, "SXM"),
        gpu_count=8,
        region="us-east-1",
        confidence="published",
        vcpus=192,
        memory_gib=Decimal(2048),
        disk_gib=Decimal("28610.2"),
        any_disk=True,
        ref="P5SKU",
    )
    assert p5.usd_per_gpu_hour == Decimal("6.88")
    assert (g5.gpu, g5.gpu_count, g5.disk_gib) == (Gpu("A10G", 24), 1, Decimal("232.8"))
    assert g5.availability is Availability.UNKNOWN


@pytest.mark.parametrize(
    "changed",
    [
        {"TermType": "Reserved"},
        {"Tenancy": "Dedicated"},
        {"Tenancy": "Host"},
        {"Operating_System": "Windows"},
        {"Operating_System": "Red Hat Enterprise Linux with HA"},
        {"Operating_System": "Ubuntu Pro"},
        {"Pre_Installed_S/W": "SQL Std"},
        {"CapacityStatus": "UnusedCapacityReservation"},
        {"CapacityStatus": "AllocatedCapacityReservation"},
        {"Unit": "Quantity"},
        {"Currency": "CNY"},
        {"Region_Code": "us-east-1-atl-1"},
        {"GPU": ""},
        {"GPU": "0"},
        {"GPU": "NA"},
        {"MarketOption": "CapacityBlock", "PricePerUnit": "0.3360000000"},
        {"MarketOption": "CapacityBlock", "PricePerUnit": "0.0000000000"},
        {"PricePerUnit": "0.0000000000"},
        {"PricePerUnit": "-1"},
        {"PricePerUnit": ""},
        {"PricePerUnit": "free"},
        {"PricePerUnit": "NaN"},
    ],
    ids=lambda changed: " ".join(f"{name}={value}" for name, value in changed.items()),
)
def test_what_is_no_price_of_a_plain_linux_instance_is_left_out(
    amazon: Amazon, aws: Aws, changed: dict[str, str]
) -> None:
    # The words that are looked for before a row is parsed are in it all the same.
    amazon.prices(row(G5), row(P5, **{"Group_Description": "Shared, Linux", **changed}))
    assert only(on_demand(aws)).instance_type == "g5.xlarge"


@pytest.mark.parametrize("software", ["", "NA"])
def test_no_software_is_said_in_two_ways(amazon: Amazon, aws: Aws, software: str) -> None:
    amazon.prices(row(G5, **{"Pre_Installed_S/W": software}))
    assert only(on_demand(aws)).instance_type == "g5.xlarge"


def test_a_region_without_gpus_has_no_offers(amazon: Amazon, aws: Aws) -> None:
    amazon.prices(row(C6I))
    assert edition(aws, EAST).offers == ()
    amazon.prices()
    assert edition(aws, EAST).offers == ()


def test_two_lines_of_one_instance_type_are_told_apart(amazon: Amazon, aws: Aws) -> None:
    amazon.prices(row(G5), row(G5, SKU="OTHER", PricePerUnit="1.1"), row(G5, PricePerUnit="7"))
    assert [(offer.ref, offer.usd_per_hour) for offer in on_demand(aws)] == [
        ("G5SKU", Decimal("1.006")),
        ("OTHER", Decimal("1.1")),
    ]
    assert len(in_spot(aws)) == 1


def test_columns_are_found_by_their_names(amazon: Amazon, aws: Aws) -> None:
    cells = dict(zip(COLUMNS, COLUMNS, strict=True))
    for name, cell in zip(COLUMNS, next(iter_cells(row(P5))), strict=True):
        cells[name] = cell
    names = ["Brand New", *reversed(COLUMNS)]
    amazon.prices(line(["x", *(cells[name] for name in reversed(COLUMNS))]), header=line(names))
    assert only(on_demand(aws)).usd_per_hour == Decimal("55.04")


def iter_cells(text: str) -> Any:
    import csv

    return csv.reader([text])


def test_facts_that_are_not_told_stay_unknown(amazon: Amazon, aws: Aws) -> None:
    amazon.prices(row(G5, vCPU="", Memory="NA", Storage="EBS only", GPU_Memory="NA"), preamble="")
    offer = only(on_demand(aws))
    assert (offer.vcpus, offer.memory_gib, offer.disk_gib) == (None, None, None)
    assert offer.gpu == Gpu("A10G", 24)
    assert datetime.now(UTC) - offer.as_of < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("storage", "gib"),
    [
        ("EBS only", None),
        ("NA", None),
        ("125 GB NVMe SSD", "116.4"),
        ("2 x 3.8 TB NVMe SSD", "7078.1"),
        ("4 x 1900 NVMe SSD", "7078.1"),
        ("1 x 1,900 GB", "1769.5"),
    ],
)
def test_disks_are_counted_in_powers_of_ten(amazon: Amazon, aws: Aws, storage: str, gib: str | None) -> None:
    amazon.prices(row(G5, Storage=storage))
    assert only(on_demand(aws)).disk_gib == (gib and Decimal(gib))


def test_memory_may_have_a_comma(amazon: Amazon, aws: Aws) -> None:
    amazon.prices(row(G5, Memory="1,952.5 GiB"))
    assert only(on_demand(aws)).memory_gib == Decimal("1952.5")


# accelerators


@pytest.mark.parametrize(
    ("instance_type", "count", "memory", "gpu"),
    [
        ("p2.16xlarge", "16", "NA", "K80"),
        ("p3.8xlarge", "4", "NA", "V100-SXM-16"),
        ("p3dn.24xlarge", "8", "256 GB", "V100-SXM-32"),
        ("p4d.24xlarge", "8", "320 GB HBM2", "A100-SXM-40"),
        ("p4d.24xlarge", "8", "NA", "A100-SXM-40"),
        ("p4de.24xlarge", "8", "640 GB HBM2e", "A100-SXM-80"),
        ("p5.4xlarge", "1", "80 GB HBM3", "H100-SXM-80"),
        ("p5en.48xlarge", "8", "1128 GB HBM3", "H200-SXM-141"),
        ("p6-b200.48xlarge", "8", "1432 GB HBM3e", "B200-SXM-180"),
        ("p6-b300.48xlarge", "8", "2144 GB HBM3e", "B300-SXM-288"),
        ("p6e-gb200.36xlarge", "4", "740 GB", "GB200-186"),
        ("g3s.xlarge", "1", "8 GB", "M60-8"),
        ("g4ad.16xlarge", "4", "32 GB", "RadeonProV520-8"),
        ("g4dn.metal", "8", "128 GB", "T4-16"),
        ("g5g.16xlarge", "2", "32 GB", "T4G-16"),
        ("g6.48xlarge", "8", "192 GB", "L4-24"),
        ("gr6.4xlarge", "1", "24 GB", "L4-24"),
        ("g6e.12xlarge", "4", "192 GB", "L40S-48"),
        ("g7.8xlarge", "2", "64 GB", "RTXPRO4500-32"),
        ("g7e.48xlarge", "8", "768 GB", "RTXPRO6000-96"),
        ("dl2q.24xlarge", "8", "128 GB", "QualcommAI100-16"),
        ("trn1.32xlarge", "16", "512 GB", "Trainium1-32"),
        ("trn2.48xlarge", "16", "NA", "Trainium2-96"),
        ("trn3.9xlarge", "4", "NA", "Trainium3-144"),
        ("inf2.xlarge", "1", "32 GB", "Inferentia2-32"),
    ],
)
def test_the_family_says_which_accelerator_it_is(
    amazon: Amazon, aws: Aws, instance_type: str, count: str, memory: str, gpu: str
) -> None:
    amazon.prices(row(P5, Instance_Type=instance_type, GPU=count, GPU_Memory=memory))
    offer = only(on_demand(aws))
    assert (str(offer.gpu), offer.gpu_count) == (gpu, int(count))


@pytest.mark.parametrize(("memory", "gpu"), [("384 GB HBM9", "p9x-96"), ("NA", "p9x")])
def test_an_accelerator_that_nobody_knows_stays_in_sight(
    amazon: Amazon, aws: Aws, memory: str, gpu: str
) -> None:
    amazon.prices(row(P5, Instance_Type="p9x.24xlarge", GPU="4", GPU_Memory=memory))
    offer = only(on_demand(aws))
    assert (str(offer.gpu), offer.gpu_count) == (gpu, 4)


@pytest.mark.parametrize(
    ("instance_type", "gpu", "count"),
    [
        ("inf1.6xlarge", "Inferentia1-8", 4),
        ("inf2.48xlarge", "Inferentia2-32", 12),
        ("trn1n.32xlarge", "Trainium1-32", 16),
        ("dl1.24xlarge", "Gaudi1-32", 8),
    ],
)
def test_chips_that_are_not_counted_as_gpus_are_known(
    amazon: Amazon, aws: Aws, instance_type: str, gpu: str, count: int
) -> None:
    amazon.prices(row(INF2, Instance_Type=instance_type))
    offer = only(on_demand(aws))
    assert (str(offer.gpu), offer.gpu_count) == (gpu, count)


@pytest.mark.parametrize(
    ("instance_type", "count"), [("g6f.xlarge", "0.125"), ("gr6f.4xlarge", "0.5"), ("trn9.96xlarge", "")]
)
def test_a_part_of_a_gpu_and_an_unknown_number_are_left_out(
    amazon: Amazon, aws: Aws, instance_type: str, count: str
) -> None:
    amazon.prices(row(G5), row(P5, Instance_Type=instance_type, GPU=count))
    assert only(on_demand(aws)).instance_type == "g5.xlarge"


# what is not as it should be


def test_a_cell_may_go_over_several_lines_and_have_quotes(amazon: Amazon, aws: Aws) -> None:
    odd = 'over\r\ntwo lines,"Reserved", and a "quote'
    amazon.prices(row(C6I, Group_Description=odd), row(P5, Group_Description=odd), row(G5))
    assert [offer.instance_type for offer in on_demand(aws)] == ["p5.48xlarge", "g5.xlarge"]


def test_the_lines_before_the_header_may_be_more_and_longer(amazon: Amazon, aws: Aws) -> None:
    amazon.prices(row(P5), preamble=PREAMBLE + '"Notice","one\ntwo\nthree"\n')
    assert only(on_demand(aws)).as_of == PUBLISHED


def test_the_last_line_may_lack_its_end(amazon: Amazon, aws: Aws) -> None:
    amazon.bodies[list_of(EAST)] = price_list(row(P5)).rstrip()
    assert only(on_demand(aws)).instance_type == "p5.48xlarge"


def test_a_malformed_row_does_not_lose_the_others(amazon: Amazon, aws: Aws) -> None:
    short = ",".join(row(P5).split(",")[:60]) + "\n"
    unclosed = row(P5).replace('"Hrs"', '"Hrs', 1)
    cr = row(P5).rstrip() + "\r\rx\n"
    others = [row(C6I)] * 200
    amazon.prices(short, row(P5, SKU=""), cr, unclosed, *others, row(G5))
    assert only(on_demand(aws)).instance_type == "g5.xlarge"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>\n<body>down</body>\n</html>", "names of its columns"),
        (b"", "names of its columns"),
        (b"\0" * 300_000, "names of its columns"),
        (b'"no end ' + b"x" * 300_000, "names of its columns"),
        (b"{\n" * 100, "names of its columns"),
        (price_list(header=line(name for name in COLUMNS if name not in {"GPU", "Unit"})), "GPU, Unit"),
        (price_list(row(P5, PricePerUnit="?"), row(G5, PricePerUnit="")), "PricePerUnit"),
        (price_list(row(P5).replace("\n", ',"x"\n')), "cells"),
        (price_list(row(C6I), row(P5).replace("\n", ',"x"\n')), "cells"),
        (price_list(row(P5).replace("\n", "\r\rx\n")), "cells"),
    ],
)
def test_what_is_no_price_list_is_a_bad_reply(amazon: Amazon, aws: Aws, body: bytes, why: str) -> None:
    amazon.bodies[list_of(EAST)] = body
    with pytest.raises(BadReply, match="aws sent prices") as caught:
        aws.catalog(EAST, None, untold)
    assert why in caught.value.why


def test_a_region_that_has_no_price_list(aws: Aws) -> None:
    with pytest.raises(Rejected, match="does not publish"):
        aws.catalog("us-moon-1", None, untold)


def test_too_many_requests_are_asked_again(amazon: Amazon, aws: Aws) -> None:
    answers = [Response(status=429, headers={"Retry-After": "0"})]
    amazon.handlers[list_of(EAST)] = lambda _: answers.pop() if answers else Response(price_list(row(P5)))
    assert only(on_demand(aws)).instance_type == "p5.48xlarge"


def test_a_server_that_fails_for_ever_is_unreachable(amazon: Amazon, aws: Aws) -> None:
    amazon.handlers[list_of(EAST)] = lambda _: Response(status=500)
    with pytest.raises(Unreachable):
        aws.catalog(EAST, None, untold)


# the Spot market


def test_a_spot_offer_has_the_price_of_the_feed_and_the_band_of_the_advisor(amazon: Amazon, aws: Aws) -> None:
    amazon.changed_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    g5 = only(in_spot(aws))
    assert g5 == Offer(
        provider="aws",
        instance_type="g5.xlarge",
        market=Market.SPOT,
        usd_per_hour=Decimal("0.3961"),
        amount=Decimal("0.3961"),
        as_of=amazon.changed_at,
        source="localhost",
        gpu=Gpu("A10G", 24),
        gpu_count=1,
        region="us-east-1",
        availability_detail="15-20% of the instances interrupted in the last month",
        confidence="published",
        vcpus=4,
        memory_gib=Decimal(16),
        disk_gib=Decimal("232.8"),
        any_disk=True,
    )
    assert g5.interruptions_per_hour is None


@pytest.mark.parametrize("price", ["N/A*", "", "0", "0.0000", "-1", "NaN", "Infinity"])
def test_what_is_no_spot_price_is_no_offer(amazon: Amazon, aws: Aws, price: str) -> None:
    amazon.bodies[SPOT] = spot(g5_xlarge=price, p5_48xlarge="2.1E+1")
    assert only(in_spot(aws)).usd_per_hour == 21


def test_a_malformed_size_does_not_lose_the_others(amazon: Amazon, aws: Aws) -> None:
    good = {"size": "g5.xlarge", "valueColumns": [{"name": "linux", "prices": {"USD": "0.4"}}]}
    other = {"size": "p5.48xlarge", "valueColumns": [{"name": "mswin", "prices": {"USD": "0.4"}}]}
    feed = spot_feed({EAST: [None, {"size": 7}, other, good], "us-west-2": [{"size": 7}]})
    feed["config"]["regions"][:0] = [None, {"unknown": True}]
    amazon.bodies[SPOT] = json.dumps(feed).encode()
    assert only(in_spot(aws)).usd_per_hour == Decimal("0.4")


def test_the_feed_may_be_a_call_of_javascript(amazon: Amazon, aws: Aws) -> None:
    amazon.bodies[SPOT] = b"/* as it is */\ncallback(" + spot(g5_xlarge="0.4") + b");\n"
    assert only(in_spot(aws)).usd_per_hour == Decimal("0.4")


def test_spot_prices_of_other_regions_are_not_taken(amazon: Amazon, aws: Aws) -> None:
    amazon.bodies[SPOT] = spot("us-east-2", g5_xlarge="0.4")
    amazon.bodies[ADVISOR] = advisor("us-east-2", g5_xlarge=1)
    assert in_spot(aws) == []


def test_an_instance_that_is_sold_only_in_blocks_may_be_had_in_spot(amazon: Amazon, aws: Aws) -> None:
    block = {"MarketOption": "CapacityBlock", "PricePerUnit": "0.0000000000", "GPU_Memory": "1128 GB HBM3"}
    amazon.prices(row(P5, Instance_Type="p5e.48xlarge", **block))
    amazon.bodies[SPOT] = spot(p5e_48xlarge="11.5")
    offer = only(list(edition(aws, EAST).offers))
    assert (offer.market, str(offer.gpu), offer.gpu_count) == (Market.SPOT, "H200-SXM-141", 8)


def test_a_feed_that_nobody_keeps_up_is_not_believed(amazon: Amazon, aws: Aws) -> None:
    amazon.changed_at = datetime.now(UTC) - timedelta(days=30)
    assert in_spot(aws) == []
    assert len(on_demand(aws)) == 2


def test_a_feed_without_a_date_is_as_of_now(amazon: Amazon, aws: Aws) -> None:
    amazon.handlers[SPOT] = lambda _: Response(spot(g5_xlarge="0.4"))
    assert datetime.now(UTC) - only(in_spot(aws)).as_of < timedelta(minutes=1)


@pytest.mark.parametrize(
    "answer",
    [
        Response(status=403),
        Response(status=500),
        Response("<html>"),
        Response("[1, 2]"),
        Response("{}"),
        Response('{"config": {"regions": "none"}}'),
        Response('{"ranges": [], "spot_advisor": [1]}'),
        Response('{"config": {"regions": [{"region": "us-east-1", "instanceTypes": 7}]}}'),
        Response('{"config": {"regions": [{"region": "us-east-2"}, {"reg'),
        Response('{"regions": ' + "[" * 100_000),
    ],
    ids=["403", "500", "html", "list", "empty", "wrong", "wrong too", "no types", "cut off", "deep"],
)
def test_prices_come_without_the_spot_market(amazon: Amazon, aws: Aws, answer: Response) -> None:
    amazon.handlers[SPOT] = amazon.handlers[ADVISOR] = lambda _: answer
    assert [offer.instance_type for offer in edition(aws, EAST).offers] == ["p5.48xlarge", "g5.xlarge"]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        advisor("us-west-2", g5_xlarge=1),
        advisor(p5_48xlarge=1),
        advisor(g5_xlarge=9),
        advisor(g5_xlarge=1).replace(b'"r": 1', b'"r": "?"'),
        advisor(g5_xlarge=1).replace(b'"Linux"', b'"Haiku"'),
    ],
)
def test_spot_prices_come_without_the_advisor(amazon: Amazon, aws: Aws, body: bytes) -> None:
    amazon.bodies[ADVISOR] = body
    assert only(in_spot(aws)).availability_detail is None


# editions


def test_new_spot_prices_do_not_cost_reading_the_price_list_again(amazon: Amazon, aws: Aws) -> None:
    first = edition(aws, EAST)
    amazon.bodies[SPOT] = spot(g5_xlarge="0.5")
    amazon.told.clear()
    told: list[int] = []
    second = edition(aws, EAST, first.validator, lambda read, _: told.append(read))
    assert amazon.told == [(list_of(EAST), 304), (SPOT, 200), (ADVISOR, 304)]
    assert told == sorted(told) and told[0] > 0
    assert [offer.usd_per_hour for offer in second.offers if offer.market is Market.SPOT] == [Decimal("0.5")]
    assert [offer for offer in second.offers if offer.market is Market.ON_DEMAND] == [
        offer for offer in first.offers if offer.market is Market.ON_DEMAND
    ]
    assert aws.catalog(EAST, second.validator, untold) is None


def test_a_new_band_is_a_new_edition(amazon: Amazon, aws: Aws) -> None:
    first = edition(aws, EAST)
    amazon.bodies[ADVISOR] = advisor(g5_xlarge=0)
    second = edition(aws, EAST, first.validator)
    assert [offer.availability_detail for offer in second.offers if offer.market is Market.SPOT] == [
        "<5% of the instances interrupted in the last month"
    ]


def test_with_a_new_price_list_everything_is_read_anew(amazon: Amazon, aws: Aws) -> None:
    amazon.bodies[SPOT] = spot(g5_xlarge="0.3961", g6_xlarge="0.3")
    first = edition(aws, EAST)
    amazon.prices(row(G5), row(G5, Instance_Type="g6.xlarge", SKU="G6SKU"))
    second = edition(aws, EAST, first.validator)
    assert {(offer.instance_type, str(offer.market)) for offer in second.offers} == {
        ("g5.xlarge", "on-demand"),
        ("g5.xlarge", "spot"),
        ("g6.xlarge", "on-demand"),
        ("g6.xlarge", "spot"),
    }


def test_what_fails_later_is_remembered_as_it_was(amazon: Amazon, aws: Aws) -> None:
    amazon.changed_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    first = edition(aws, EAST)
    amazon.handlers[SPOT] = amazon.handlers[ADVISOR] = lambda _: Response(status=503)
    second = edition(aws, EAST, first.validator)
    assert second.offers == first.offers
    assert aws.catalog(EAST, second.validator, untold) is None
    amazon.handlers.clear()
    amazon.told.clear()
    third = edition(aws, EAST, second.validator)
    assert third.offers == first.offers
    assert amazon.told == [(list_of(EAST), 304), (SPOT, 200), (ADVISOR, 200)]


def test_a_feed_that_has_stopped_is_forgotten(amazon: Amazon, aws: Aws) -> None:
    first = edition(aws, EAST)
    assert first.validator is not None
    remembered = json.loads(first.validator)
    remembered["spot"]["as_of"] = "2026-01-01T00:00:00Z"
    second = edition(aws, EAST, json.dumps(remembered))
    assert amazon.told[-2:] == [(SPOT, 304), (ADVISOR, 304)]
    assert {offer.market for offer in second.offers} == {Market.ON_DEMAND}
    assert aws.catalog(EAST, second.validator, untold) is None


@pytest.mark.parametrize("validator", ['"an-etag"', "Tue, 17 Nov 2026 00:00:00 GMT", "{}", ""])
def test_a_validator_of_another_version_is_as_good_as_none(aws: Aws, validator: str) -> None:
    assert len(edition(aws, EAST, validator).offers) == 3


def test_without_editions_there_is_no_validator(amazon: Amazon, aws: Aws) -> None:
    amazon.handlers[list_of(EAST)] = lambda _: Response(price_list(row(P5)))
    assert edition(aws, EAST).validator is None


def test_a_price_list_that_never_came_cannot_be_unchanged(amazon: Amazon, aws: Aws) -> None:
    amazon.handlers[list_of(EAST)] = lambda _: Response(status=304)
    with pytest.raises(BadReply):
        aws.catalog(EAST, None, untold)


def test_nothing_is_asked_for_packed(amazon: Amazon, aws: Aws) -> None:
    asked: list[str | None] = []

    def answer(request: Request) -> Response:
        asked.append(request.headers.get("Accept-Encoding"))
        return Response(amazon.bodies[request.path])

    amazon.handlers = dict.fromkeys((list_of(EAST), SPOT, ADVISOR), answer)
    edition(aws, EAST)
    assert asked == ["identity"] * 3
