"""What EC2 sells at this moment, and what an account may not see of it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from moto.ec2.models.instance_types import INSTANCE_TYPES

from gpucloud.errors import AuthError, ConfigError, ProviderError, Unreachable
from gpucloud.model import Availability, Gpu, GpuWish, Market, Offer, Requirements
from gpucloud.provider import (
    Advises,
    HasSideResources,
    KeepsShared,
    ProviderSettings,
    PublicCatalog,
    SpotHistory,
)
from gpucloud_aws import Aws
from tests.harness.aws import LOGIN, Cloud, Refusal
from tests.providers.aws.conftest import Find, MakeAdapter

ROOT = Path(__file__).resolve().parents[3]
EVERYTHING = Requirements(markets=())


def sold(adapter: Aws, wanted: Requirements = EVERYTHING) -> list[Offer]:
    return list(adapter.offers(wanted))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# what is sold


def test_every_type_with_an_accelerator_is_sold_in_each_zone_and_market(adapter: Aws, cloud: Cloud) -> None:
    offers = sold(adapter)
    assert {(offer.instance_type, str(offer.gpu), offer.gpu_count) for offer in offers} == {
        ("g5.xlarge", "A10G-24", 1),
        ("g5g.xlarge", "T4G-16", 1),
        ("g6.12xlarge", "L4-24", 4),
        ("inf2.xlarge", "Inferentia2-32", 1),
        ("p4d.24xlarge", "A100-SXM-40", 8),
        ("p5.48xlarge", "H100-SXM-80", 8),
        ("trn1.32xlarge", "Trainium1-32", 16),
    }
    assert len(offers) == 7 * len(cloud.regions) * 2 * 2


def test_an_offer_says_all_that_is_told_of_it(find: Find) -> None:
    offer = find("p5.48xlarge", "us-west-2b", Market.SPOT)
    assert (offer.usd_per_hour, offer.amount, offer.currency) == (Decimal("21.345600"),) * 2 + ("USD",)
    assert (offer.source, offer.confidence) == ("ec2:DescribeSpotPriceHistory", "live")
    assert (offer.region, offer.zone) == ("us-west-2", "us-west-2b")
    assert (offer.vcpus, offer.memory_gib, offer.interconnect) == (192, Decimal(2048), "efa")
    assert offer.disk_gib == Decimal("28312.2")
    assert (offer.availability, offer.availability_detail) == (Availability.UNKNOWN, None)
    assert find("p5.48xlarge").source == "pricing:GetProducts"


def test_the_newest_spot_price_of_the_zone_holds(cloud: Cloud, find: Find) -> None:
    cloud.spot_usd["g5.xlarge", "us-east-1b"] = "0.5"
    assert find(zone="us-east-1b", market=Market.SPOT).usd_per_hour == Decimal("0.5")
    assert find(zone="us-east-1a", market=Market.SPOT).usd_per_hour == Decimal("0.402100")


def test_a_type_is_sold_only_in_the_zones_that_have_it(adapter: Aws, cloud: Cloud) -> None:
    cloud.not_offered |= {
        ("g5.xlarge", "us-east-1a"),
        ("p5.48xlarge", "us-east-1a"),
        ("p5.48xlarge", "us-east-1b"),
    }
    wanted = Requirements(markets=(), regions=("us-east-1",), instance_types=("g5.xlarge", "p5.48xlarge"))
    assert {(offer.instance_type, offer.zone) for offer in sold(adapter, wanted)} == {
        ("g5.xlarge", "us-east-1b")
    }


def test_a_type_without_an_accelerator_is_sold_to_who_names_it(adapter: Aws) -> None:
    (offer, *_) = sold(adapter, Requirements(instance_types=("C6I.large",)))
    assert (offer.instance_type, offer.gpu, offer.gpu_count, offer.vcpus) == ("c6i.large", None, 0, 2)


def test_a_part_of_a_gpu_is_not_sold_as_none(adapter: Aws) -> None:
    assert not sold(adapter, Requirements(markets=(), instance_types=("g6f.large",)))


def test_what_needs_several_pages_is_read_to_the_end(adapter: Aws, cloud: Cloud) -> None:
    cloud.page_size = 2
    assert len(sold(adapter)) == 7 * len(cloud.regions) * 2 * 2


# what is not asked


def test_only_the_market_that_is_wanted_is_asked_about(adapter: Aws, cloud: Cloud) -> None:
    assert {offer.market for offer in sold(adapter, Requirements())} == {Market.ON_DEMAND}
    assert not cloud.of("DescribeSpotPriceHistory")
    cloud.asked.clear()
    assert {offer.market for offer in sold(adapter, Requirements(markets=(Market.SPOT,)))} == {Market.SPOT}
    assert not cloud.of("GetProducts")


def test_only_families_with_accelerators_are_asked_about(adapter: Aws, cloud: Cloud) -> None:
    sold(adapter)
    for asked in cloud.of("DescribeInstanceTypeOfferings"):
        (only,) = asked.words["Filters"]
        assert only == {"Name": "instance-type", "Values": ["dl*", "g*", "inf*", "p*", "trn*"]}


def test_only_the_gpu_that_is_wanted_is_asked_about(adapter: Aws, cloud: Cloud) -> None:
    wanted = Requirements(markets=(), gpus=(GpuWish(8, Gpu("H100")),))
    assert {offer.instance_type for offer in sold(adapter, wanted)} == {"p5.48xlarge"}
    for asked in cloud.of("DescribeSpotPriceHistory"):
        assert asked.words["InstanceTypes"] == ["p5.48xlarge"]


@pytest.mark.parametrize("named", ["us", "us-east-1", "us-east-1a", "US-East-1"])
def test_only_the_regions_that_are_wanted_are_asked(adapter: Aws, cloud: Cloud, named: str) -> None:
    sold(adapter, Requirements(regions=(named,)))
    asked = {asked.region for asked in cloud.of("DescribeInstanceTypeOfferings")}
    assert asked == ({"us-east-1", "us-west-2"} if named == "us" else {"us-east-1"})


def test_the_setting_restricts_the_regions(make_adapter: MakeAdapter, cloud: Cloud) -> None:
    offers = sold(make_adapter(regions=["eu-west-1", "us-west-2"]), Requirements(regions=("us",)))
    assert {offer.region for offer in offers} == {"us-west-2"}
    assert {asked.region for asked in cloud.of("DescribeInstanceTypeOfferings")} == {"us-west-2"}


def test_prices_are_asked_for_by_type_or_by_region_whichever_takes_fewer(adapter: Aws, cloud: Cloud) -> None:
    sold(adapter, Requirements())
    fields = [{each["Field"] for each in asked.words["Filters"]} for asked in cloud.of("GetProducts")]
    assert len(fields) == 7
    assert all("instanceType" in names and "regionCode" not in names for names in fields)


def test_prices_of_many_types_are_asked_for_by_region(adapter: Aws, cloud: Cloud) -> None:
    cloud.types = tuple(name for name in INSTANCE_TYPES if name.startswith(("c6i.", "m6i.")))
    wanted = Requirements(regions=("us-east-1",), instance_types=cloud.types)
    assert {offer.instance_type for offer in sold(adapter, wanted)} == set(cloud.types)
    (asked,) = cloud.of("GetProducts")
    fields = {each["Field"]: each["Value"] for each in asked.words["Filters"]}
    assert fields["regionCode"] == "us-east-1"
    assert "instanceType" not in fields


# quota


def test_an_offer_that_the_quota_does_not_allow_says_so_with_its_figures(cloud: Cloud, find: Find) -> None:
    cloud.quotas["us-east-1", "L-417A185B"] = 96
    offer = find("p5.48xlarge")
    assert offer.availability is Availability.NO_QUOTA
    assert offer.availability_detail == "Running On-Demand P instances (L-417A185B): 96 of 192 vCPUs"
    assert find("p4d.24xlarge").availability is Availability.UNKNOWN
    assert find("p5.48xlarge", market=Market.SPOT).availability is Availability.UNKNOWN
    assert find("p5.48xlarge", "us-west-2a").availability is Availability.UNKNOWN


def test_without_the_permission_the_quota_is_not_known(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.quotas["us-east-1", "L-417A185B"] = 0
    cloud.forbidden.add(("servicequotas:ListServiceQuotas", None))
    assert {offer.availability for offer in sold(adapter)} == {Availability.UNKNOWN}
    (line,) = warnings(caplog)
    assert "servicequotas:ListServiceQuotas is not allowed in eu-west-1, us-east-1, us-west-2" in line


# what is forbidden, or fails


def test_without_the_price_list_there_is_still_spot(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbidden.add(("pricing:GetProducts", None))
    assert {offer.market for offer in sold(adapter)} == {Market.SPOT}
    (line,) = warnings(caplog)
    assert "pricing:GetProducts is not allowed" in line


def test_without_spot_prices_there_is_still_what_is_on_demand(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbidden.add(("ec2:DescribeSpotPriceHistory", "us-east-1"))
    offers = sold(adapter)
    assert {o.region for o in offers if o.market is Market.SPOT} == {"eu-west-1", "us-west-2"}
    assert {o.region for o in offers if o.market is Market.ON_DEMAND} == set(cloud.regions)
    (line,) = warnings(caplog)
    assert "ec2:DescribeSpotPriceHistory is not allowed in us-east-1: " in line


def test_a_region_that_is_forbidden_is_left_out(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    what = "ec2:DescribeInstanceTypeOfferings"
    cloud.forbidden |= {(what, "us-east-1"), (what, "eu-west-1")}
    assert {offer.region for offer in sold(adapter)} == {"us-west-2"}
    (line,) = warnings(caplog)
    assert f"{what} is not allowed in eu-west-1, us-east-1" in line


def test_what_a_type_is_any_region_that_has_it_may_tell(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbidden.add(("ec2:DescribeInstanceTypes", "eu-west-1"))
    cloud.not_offered |= {("p5.48xlarge", f"us-east-1{letter}") for letter in "ab"}
    assert {offer.region for offer in sold(adapter)} == set(cloud.regions)
    assert [asked.region for asked in cloud.of("DescribeInstanceTypes")] == ["eu-west-1", "us-west-2"]
    (line,) = warnings(caplog)
    assert "ec2:DescribeInstanceTypes is not allowed in eu-west-1: instance types are read elsewhere" in line


def test_who_may_not_list_regions_can_name_them(
    make_adapter: MakeAdapter, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbidden.add(("ec2:DescribeRegions", None))
    with pytest.raises(AuthError) as caught:
        sold(make_adapter())
    assert "ec2:DescribeRegions" in caught.value.hint
    offers = sold(make_adapter(regions=["us-east-1", "us-west-2"]), Requirements(regions=("us-west-2",)))
    assert {offer.region for offer in offers} == {"us-west-2"}
    assert "ec2:DescribeRegions is not allowed" in warnings(caplog)[0]


def test_when_all_is_forbidden_it_is_said_which_permission_is_missing(adapter: Aws, cloud: Cloud) -> None:
    cloud.forbidden.add(("ec2:DescribeInstanceTypes", None))
    with pytest.raises(AuthError) as caught:
        sold(adapter)
    assert "ec2:" in caught.value.hint


def test_a_region_that_fails_is_left_out_with_a_warning(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.refusals["DescribeInstanceTypeOfferings"] = [Refusal(503, "Unavailable")]
    assert len({offer.region for offer in sold(adapter)}) == 2
    (line,) = warnings(caplog)
    assert re.search(r"aws: \S+ is left out: aws in \S+ failed on its side", line)


def test_a_price_list_that_fails_leaves_spot_and_alone_is_an_error(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.refusals["GetProducts"] = [Refusal(500, "InternalErrorException")] * 7
    assert {offer.market for offer in sold(adapter)} == {Market.SPOT}
    assert "on-demand offers are left out" in " ".join(warnings(caplog))
    cloud.refusals["GetProducts"] = [Refusal(500, "InternalErrorException")] * 7
    with pytest.raises(Unreachable):
        sold(adapter, Requirements())


def test_throttled_reads_are_asked_again(make_adapter: MakeAdapter, cloud: Cloud) -> None:
    cloud.throttled |= {"DescribeRegions": 1, "GetProducts": 1}
    assert sold(make_adapter(attempts=2), Requirements(regions=("us-east-1",), instance_types=("g5.xlarge",)))


# whose


def test_to_tell_whether_it_is_set_up_loads_no_sdk(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gpucloud.provider import ProviderSettings;"
        "from gpucloud_aws import Aws;"
        "Aws.configured(ProviderSettings('aws', Path('state'), environ={'HOME': '.'}));"
        "sys.exit(bool({'boto3', 'botocore', 'httpx', 'pydantic'} & sys.modules.keys()))"
    )
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "providers")]),
    }
    subprocess.run([sys.executable, "-c", script], env=environ, cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("environ", "files", "table", "is_there"),
    [
        ({}, {}, {}, False),
        (LOGIN, {}, {}, True),
        ({"AWS_PROFILE": "work"}, {}, {}, True),
        ({}, {}, {"profile": "work"}, True),
        ({}, {}, {"catalog_regions": ["eu"]}, False),
        ({}, {}, {"regions": ["eu"]}, True),
        ({}, {"credentials": "[default]\naws_access_key_id = AKIA\n"}, {}, True),
        ({}, {"config": "[default]\nregion = eu-west-1\n"}, {}, False),
        ({}, {"config": "[sso-session a]\nsso_start_url = https://a.example\n"}, {}, True),
    ],
)
def test_it_is_set_up_when_amazon_s_own_tools_have_a_login(
    tmp_path: Path, environ: dict[str, str], files: dict[str, str], table: dict[str, object], is_there: bool
) -> None:
    for name, text in files.items():
        file = tmp_path / ".aws" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    settings = ProviderSettings(
        "aws", tmp_path / "state", table=table, environ={"HOME": str(tmp_path), **environ}
    )
    assert Aws.configured(settings) is is_there


def test_without_credentials_every_verb_says_how_to_give_them(
    tmp_path: Path, elsewhere_nothing: None
) -> None:
    adapter = Aws(ProviderSettings("aws", tmp_path / "state", environ={"HOME": str(tmp_path)}))
    for verb in (lambda: list(adapter.offers(EVERYTHING)), lambda: list(adapter.instances())):
        with pytest.raises(AuthError) as caught:
            verb()
        assert "aws configure" in caught.value.hint


def test_without_boto3_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    adapter = Aws(ProviderSettings("aws", tmp_path / "state", environ=LOGIN))
    with pytest.raises(ConfigError) as caught:
        list(adapter.offers(EVERYTHING))
    assert caught.value.hint == "pip install 'gpucloud[aws]'"


def test_it_can_all_that_it_could_before_and_more(adapter: Aws) -> None:
    for ability in (PublicCatalog, SpotHistory, HasSideResources, KeepsShared, Advises):
        assert isinstance(adapter, ability)


# how likely


def test_a_score_says_how_likely_spot_is_and_the_advisor_what_was(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.scores |= {("g5.xlarge", "us-east-1a"): 9, ("g5.xlarge", "us-east-1b"): 2}
    cloud.bands["g5.xlarge", "us-east-1"] = 1
    spot = [find(zone=zone, market=Market.SPOT) for zone in ("us-east-1a", "us-east-1b", "us-west-2a")]
    likely, unlikely = adapter.advise(spot, 4)
    assert (likely.zone, likely.availability) == ("us-east-1a", Availability.AVAILABLE)
    assert likely.availability_detail == (
        "placement score 9 of 10; 5-10% of the instances interrupted in the last month"
    )
    assert (unlikely.zone, unlikely.availability) == ("us-east-1b", Availability.UNKNOWN)
    (asked,) = cloud.of("GetSpotPlacementScores")
    assert (asked.words["TargetCapacity"], asked.words["RegionNames"]) == (4, ["us-east-1", "us-west-2"])


def test_of_what_is_on_demand_nothing_is_told_and_nothing_asked(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.scores["g5.xlarge", "us-east-1a"] = 9
    assert not list(adapter.advise([find()], 1))
    assert not cloud.of("GetSpotPlacementScores")


def test_without_the_permission_for_scores_there_is_still_the_advisor(
    adapter: Aws, cloud: Cloud, find: Find, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbidden.add(("ec2:GetSpotPlacementScores", None))
    cloud.bands["g5.xlarge", "us-east-1"] = 0
    (told,) = adapter.advise([find(market=Market.SPOT)], 1)
    assert told.availability is Availability.UNKNOWN
    assert told.availability_detail == "<5% of the instances interrupted in the last month"
    assert "ec2:GetSpotPlacementScores is not allowed" in warnings(caplog)[0]


def test_a_good_score_does_not_hide_that_the_quota_is_missing(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.scores["p5.48xlarge", "us-east-1a"] = 10
    cloud.quotas["us-east-1", "L-C4BD4855"] = 0
    (told,) = adapter.advise([find("p5.48xlarge", market=Market.SPOT)], 1)
    assert told.availability is Availability.NO_QUOTA
    assert "L-C4BD4855" in (told.availability_detail or "")


def test_a_day_s_ration_of_scores_may_be_used_up(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.refusals["GetSpotPlacementScores"] = [Refusal(400, "MaxConfigLimitExceeded")]
    with pytest.raises(ProviderError) as caught:
        list(adapter.advise([find(market=Market.SPOT)], 1))
    assert caught.value.code == "rate-limited"
