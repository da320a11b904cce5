"""What Spot instances have cost, as EC2 tells an account."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.errors import (
    AuthError,
    BadReply,
    ConfigError,
    GpucloudError,
    NotFound,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.provider import ProviderSettings
from gpucloud.testing import SpotHistoryConformance
from gpucloud_aws import Aws
from tests.providers.aws.ec2 import C6I, DL2Q, G5, G6F, KEY, P5, SECRET, TRN2, Ec2, gpus, price

MakeAws = Callable[..., Aws]
EAST, WEST = "us-east-1", "us-west-2"
NOW = utcnow().replace(microsecond=0)
SINCE = NOW - timedelta(days=10)
NOT_VALID = (401, "AuthFailure", "AWS was not able to validate the provided access credentials")


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor the machine itself give credentials; once set, these could do so."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def ec2(httpserver: HTTPServer) -> Ec2:
    """A server with a price of a p5.48xlarge in two regions."""
    ec2 = Ec2()
    for region in (EAST, WEST):
        ec2.types[region] = [C6I, P5]
        ec2.prices[region] = [price("p5.48xlarge", f"{region}b", "21.345600", NOW - timedelta(days=1))]
    httpserver.expect_request(re.compile(".*")).respond_with_handler(ec2.answer)
    return ec2


@pytest.fixture
def make_aws(httpserver: HTTPServer, tmp_path: Path) -> MakeAws:
    """The adapter before that server; it asks once, as whoever waits before asking again really waits."""
    usual = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def make(environ: dict[str, str] = usual, **table: Any) -> Aws:
        return Aws(
            ProviderSettings(
                "aws",
                tmp_path / "state",
                table={"endpoint_url": httpserver.url_for(""), **table},
                environ={"HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1", **environ},
            )
        )

    return make


@pytest.fixture
def aws(ec2: Ec2, make_aws: MakeAws) -> Aws:
    return make_aws()


def past(aws: Aws, *regions: str) -> list[Offer]:
    return list(aws.spot_history(SINCE, regions or (EAST,)))


def seen(offers: list[Offer]) -> set[tuple[str | None, str]]:
    return {(offer.zone, str(offer.usd_per_hour)) for offer in offers}


def told_of(error: GpucloudError) -> str:
    """The three lines that a person would see; none of them may be empty."""
    assert error.message
    assert error.why
    assert error.hint
    return f"{error.message}\n{error.why}\n{error.hint}"


class TestAwsSpotHistory(SpotHistoryConformance):
    @pytest.fixture
    def teller(self, aws: Aws) -> Aws:
        return aws

    def test_the_usual_regions_are_asked(self, teller: Aws, ec2: Ec2) -> None:
        teller.spot_history(SINCE, ())
        assert {asked.region for asked in ec2.asked} == set(teller.catalog_parts(()))


# prices


def test_a_price_is_an_offer_of_its_zone_since_it_has_held(ec2: Ec2, aws: Aws) -> None:
    at = NOW - timedelta(days=3)
    ec2.prices[EAST] = [price("p5.48xlarge", "us-east-1b", "21.345600", at)]
    (offer,) = past(aws)
    assert offer == Offer(
        provider="aws",
        instance_type="p5.48xlarge",
        market=Market.SPOT,
        usd_per_hour=Decimal("21.345600"),
        amount=Decimal("21.345600"),
        as_of=at,
        source="ec2:DescribeSpotPriceHistory",
        gpu=Gpu.parse("H100-SXM-80"),
        gpu_count=8,
        region=EAST,
        zone="us-east-1b",
        availability=Availability.UNKNOWN,
        confidence="history",
    )


def test_what_is_asked_for_is_the_linux_price_of_all_that_has_an_accelerator(ec2: Ec2, aws: Aws) -> None:
    ec2.types[EAST] = [C6I, P5, G6F, G5, TRN2]
    past(aws)
    (asked,) = ec2.of("DescribeSpotPriceHistory")
    assert asked.words["InstanceType"] == ["g5.xlarge", "p5.48xlarge", "trn2.48xlarge"]
    assert asked.words["ProductDescription"] == ["Linux/UNIX"]
    assert datetime.fromisoformat(asked.words["StartTime"][0]) == SINCE


def test_the_price_that_held_when_the_time_began_is_kept(ec2: Ec2, aws: Aws) -> None:
    before = SINCE - timedelta(days=40)
    ec2.prices[EAST] = [
        price("p5.48xlarge", "us-east-1b", "20.1", NOW),
        price("p5.48xlarge", "us-east-1b", "19.9", before),
    ]
    assert min(offer.as_of for offer in past(aws)) == before


def test_both_regions_and_all_their_pages_are_read(ec2: Ec2, aws: Aws) -> None:
    ec2.page_size = 2
    wanted = set()
    for region in (EAST, WEST):
        ec2.types[region] = [C6I, {"instanceType": "c6i.xlarge"}, G5, P5, TRN2]
        kinds = [kind for _ in range(3) for kind in ("g5.xlarge", "p5.48xlarge", "trn2.48xlarge")]
        rows = [
            price(kind, f"{region}{'abc'[n % 3]}", f"{n + 1}.5", NOW - timedelta(hours=n))
            for n, kind in enumerate(kinds)
        ]
        ec2.prices[region] = rows
        wanted |= {(row["availabilityZone"], row["spotPrice"]) for row in rows}
    offers = past(aws, EAST, WEST)
    assert seen(offers) == wanted
    assert len(offers) == len(wanted) == 18
    assert len(ec2.of("DescribeInstanceTypes")) == 6
    assert len(ec2.of("DescribeSpotPriceHistory")) == 10


def test_an_empty_page_is_not_the_end(ec2: Ec2, aws: Aws) -> None:
    ec2.first["DescribeSpotPriceHistory"] = ["<R><spotPriceHistorySet/><nextToken>0</nextToken></R>"]
    assert seen(past(aws)) == {("us-east-1b", "21.345600")}


def test_a_row_at_fault_hides_no_other(ec2: Ec2, aws: Aws) -> None:
    good = price("p5.48xlarge", "us-east-1b", "20.1", NOW)
    bad = [{**good, "spotPrice": text} for text in ("free", "0", "-1", "NaN", "")]
    ec2.prices[EAST] = [*bad, good, {**good, "availabilityZone": None}]
    assert seen(past(aws)) == {("us-east-1b", "20.1")}
    ec2.prices[EAST] = bad
    with pytest.raises(BadReply):
        past(aws)


def test_prices_of_other_systems_and_other_types_are_left_out(ec2: Ec2, aws: Aws) -> None:
    ec2.heedless = True
    ec2.prices[EAST] = [
        price("p5.48xlarge", "us-east-1b", "20.1", NOW),
        price("p5.48xlarge", "us-east-1b", "99.9", NOW, "Windows"),
        price("c6i.large", "us-east-1b", "0.03", NOW),
    ]
    assert seen(past(aws)) == {("us-east-1b", "20.1")}


def test_a_clock_that_is_ahead_makes_no_price_of_the_future(ec2: Ec2, aws: Aws) -> None:
    ec2.prices[EAST] = [price("p5.48xlarge", "us-east-1b", "20.1", utcnow() + timedelta(hours=1))]
    (offer,) = past(aws)
    assert offer.as_of <= utcnow()


def test_a_region_without_accelerators_has_no_prices(ec2: Ec2, aws: Aws) -> None:
    ec2.types[EAST] = [C6I, G6F]
    assert past(aws) == []
    assert not ec2.of("DescribeSpotPriceHistory")


# chips


@pytest.mark.parametrize(
    ("kind", "chip", "count"),
    [
        (P5, "H100-SXM-80", 8),
        (G5, "A10G-24", 1),
        (gpus("g6.xlarge", 1, "L4", 22888), "L4-24", 1),
        (gpus("g6e.xlarge", 1, "L40S", 45776), "L40S-48", 1),
        (gpus("g4ad.xlarge", 1, "Radeon Pro V520", 8192, "AMD"), "RadeonProV520-8", 1),
        (gpus("p4de.24xlarge", 8, "A100", 81920), "A100-SXM-80", 8),
        (gpus("p6-b200.48xlarge", 8, "B200", 183359), "B200-SXM-180", 8),
        (TRN2, "Trainium2-96", 16),
        (DL2Q, "QualcommAI100", 8),
    ],
)
def test_an_instance_type_has_the_chip_that_the_catalogue_says(
    kind: Any, chip: str, count: int, ec2: Ec2, aws: Aws
) -> None:
    ec2.types[EAST] = [kind]
    ec2.prices[EAST] = [price(kind["instanceType"], "us-east-1b", "2.5", NOW)]
    (offer,) = past(aws)
    assert (str(offer.gpu), offer.gpu_count) == (chip, count)


def test_a_type_that_nobody_knows_is_told_in_the_words_of_its_maker(ec2: Ec2, aws: Aws) -> None:
    ec2.types[EAST] = [gpus("zz9.xlarge", 2, "Quux 9000", 65536, "Acme")]
    ec2.prices[EAST] = [price("zz9.xlarge", "us-east-1b", "2.5", NOW)]
    (offer,) = past(aws)
    assert offer.gpu is not None
    assert "Quux9000" in str(offer.gpu)
    assert (offer.gpu.memory_gib, offer.gpu_count) == (64, 2)


def test_a_part_of_a_gpu_is_left_out(ec2: Ec2, aws: Aws) -> None:
    ec2.types[EAST].append(G6F)
    ec2.prices[EAST].append(price("g6f.large", "us-east-1b", "0.1", NOW))
    assert {offer.instance_type for offer in past(aws)} == {"p5.48xlarge"}


# regions


def test_regions_that_are_named_are_asked_and_no_others(ec2: Ec2, aws: Aws, httpserver: HTTPServer) -> None:
    past(aws, " US-West-2", EAST, EAST)
    assert sorted(asked.region for asked in ec2.of("DescribeInstanceTypes")) == [EAST, WEST]
    assert {request.path for request, _ in httpserver.log} == {"/"}


def test_a_beginning_means_all_regions_that_have_it(ec2: Ec2, aws: Aws) -> None:
    past(aws, "us")
    assert {asked.region for asked in ec2.asked} == {"us-east-1", "us-east-2", "us-west-1", "us-west-2"}


def test_regions_of_the_setting_are_asked(ec2: Ec2, make_aws: MakeAws) -> None:
    list(make_aws(catalog_regions=["us-gov"]).spot_history(SINCE, ()))
    assert {asked.region for asked in ec2.asked} == {"us-gov-east-1", "us-gov-west-1"}


def test_a_region_that_is_none_is_told_before_anybody_is_asked(ec2: Ec2, aws: Aws) -> None:
    with pytest.raises(NotFound) as caught:
        past(aws, EAST, "us-esat-1")
    assert "us-east-1" in told_of(caught.value)
    with pytest.raises(NotFound) as caught:
        past(aws, "mars")
    assert "boto3" in told_of(caught.value)
    assert ec2.asked == []


@pytest.mark.parametrize("trouble", [NOT_VALID, (401, "OptInRequired", "You are not subscribed")])
def test_a_closed_region_is_left_out_if_only_a_beginning_meant_it(
    trouble: tuple[int, str, str], ec2: Ec2, aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    ec2.troubles["us-east-2"] = trouble
    with caplog.at_level(logging.DEBUG, logger="gpucloud_aws"):
        assert {offer.region for offer in past(aws, "us")} == {EAST, WEST}
    assert "us-east-2 is left out" in caplog.text
    with pytest.raises((AuthError, NotFound)) as caught:
        past(aws, "us", "us-east-2")
    assert "aws account enable-region --region-name us-east-2" in told_of(caught.value)


def test_a_region_to_be_opted_in_to_is_not_found(ec2: Ec2, aws: Aws) -> None:
    ec2.troubles["eu-south-1"] = (403, "OptInRequired", "You are not subscribed")
    with pytest.raises(NotFound, match="eu-south-1"):
        past(aws, EAST, "eu-south-1")


# troubles


def test_credentials_that_every_region_refuses_are_refused(ec2: Ec2, make_aws: MakeAws) -> None:
    aws = make_aws({"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": SECRET})
    with pytest.raises(AuthError) as caught:
        past(aws, "us")
    assert "not able to validate" in told_of(caught.value)
    assert caught.value.vendor_code == "AuthFailure"


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (400, "UnrecognizedClientException", AuthError, "refused the credentials"),
        (400, "RequestExpired", AuthError, "refused the credentials"),
        (400, "ExpiredToken", AuthError, "refused the credentials"),
        (403, "UnauthorizedOperation", AuthError, "ec2:DescribeSpotPriceHistory"),
        (503, "RequestLimitExceeded", RateLimited, "too often"),
        (400, "Throttling", RateLimited, "too often"),
        (429, "SomethingNew", RateLimited, "too often"),
        (500, "InternalError", Unreachable, "on its side"),
        (503, "Unavailable", Unreachable, "on its side"),
        (400, "InvalidParameterValue", Rejected, "these are the words"),
    ],
)
def test_what_ec2_refuses_is_told_in_our_words(
    status: int, code: str, error: type[GpucloudError], words: str, ec2: Ec2, aws: Aws
) -> None:
    ec2.troubles[EAST] = (status, code, "these are the words")
    with pytest.raises(error) as caught:
        past(aws)
    assert type(caught.value) is error
    assert words in told_of(caught.value)
    assert EAST in told_of(caught.value)


def test_one_region_in_trouble_is_no_silence(ec2: Ec2, aws: Aws) -> None:
    ec2.troubles[WEST] = (503, "RequestLimitExceeded", "Request limit exceeded.")
    with pytest.raises(RateLimited):
        past(aws, "us")


@pytest.mark.parametrize("action", ["DescribeInstanceTypes", "DescribeSpotPriceHistory"])
@pytest.mark.parametrize(
    "text",
    [
        "<html>no</wonder>",
        "<R><instanceTypeSet><item><instanceType>p5.48xlarge</instanceType><gpuInfo><gpus><item>"
        "<count>some</count></item></gpus></gpuInfo></item></instanceTypeSet>"
        "<spotPriceHistorySet><item><timestamp>noon</timestamp></item></spotPriceHistorySet></R>",
    ],
    ids=["no XML", "other types"],
)
def test_an_answer_that_makes_no_sense_is_a_bad_reply(action: str, text: str, ec2: Ec2, aws: Aws) -> None:
    ec2.first[action] = [text]
    with pytest.raises(BadReply) as caught:
        past(aws)
    assert told_of(caught.value)


def test_pages_without_end_are_a_bad_reply(ec2: Ec2, aws: Aws) -> None:
    ec2.first["DescribeSpotPriceHistory"] = ["<R><nextToken>again</nextToken></R>"] * 2
    with pytest.raises(BadReply):
        past(aws)


def test_a_server_that_is_not_there_cannot_be_reached(make_aws: MakeAws) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        past(make_aws(endpoint_url=f"http://127.0.0.1:{port}"))
    assert EAST in told_of(caught.value)


def test_without_boto3_it_says_what_to_install(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError) as caught:
        past(aws)
    assert caught.value.hint == "pip install 'gpucloud[aws]'"


# credentials


def test_without_credentials_nobody_is_asked(ec2: Ec2, make_aws: MakeAws) -> None:
    with pytest.raises(AuthError) as caught:
        past(make_aws({}))
    assert "AWS_ACCESS_KEY_ID" in told_of(caught.value)
    assert ec2.asked == []


def test_variables_of_the_process_are_not_those_of_the_settings(
    ec2: Ec2, make_aws: MakeAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text(f"[me]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("AWS_PROFILE", "me")
    with pytest.raises(AuthError):
        past(make_aws({}))


def test_half_of_the_credentials_are_none(ec2: Ec2, make_aws: MakeAws) -> None:
    with pytest.raises(AuthError) as caught:
        past(make_aws({"AWS_ACCESS_KEY_ID": KEY}))
    assert "AWS_SECRET_ACCESS_KEY" in told_of(caught.value)


@pytest.fixture
def files(tmp_path: Path) -> None:
    """Credentials below the home of the settings: nobody's by default, and ours under the name ``mine``."""
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id=AKIANOBODY\naws_secret_access_key=no\n"
        f"[mine]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"
    )


@pytest.mark.usefixtures("files")
def test_a_profile_may_be_named_by_the_setting_or_a_variable(ec2: Ec2, make_aws: MakeAws) -> None:
    assert past(make_aws({"AWS_PROFILE": "mine"}))
    assert past(make_aws({}, profile="mine"))
    nobody = {"AWS_ACCESS_KEY_ID": "AKIANOBODY", "AWS_SECRET_ACCESS_KEY": "no"}
    assert past(make_aws(nobody, profile="mine"))
    with pytest.raises(AuthError):
        past(make_aws({}))


@pytest.mark.usefixtures("files")
def test_a_profile_that_is_not_there_is_a_wrong_setting(ec2: Ec2, make_aws: MakeAws) -> None:
    for aws in (make_aws({}, profile="yours"), make_aws({"AWS_PROFILE": "yours"})):
        with pytest.raises(ConfigError) as caught:
            past(aws)
        assert "yours" in told_of(caught.value)


@pytest.mark.parametrize("address", ["no address", "ec2.example.com", "http://"])
def test_an_address_that_is_none_is_a_wrong_setting(address: str, ec2: Ec2, make_aws: MakeAws) -> None:
    with pytest.raises(ConfigError) as caught:
        past(make_aws(endpoint_url=address))
    assert address in told_of(caught.value)


@pytest.mark.parametrize("attempts", ["0", "many"])
def test_a_variable_of_aws_that_makes_no_sense_is_a_wrong_setting(attempts: str, make_aws: MakeAws) -> None:
    environ = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_MAX_ATTEMPTS": attempts}
    with pytest.raises(ConfigError) as caught:
        past(make_aws(environ))
    assert attempts in told_of(caught.value)
