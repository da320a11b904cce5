"""What an hour on demand costs, as GetProducts tells whoever has an account: in one place for all regions.

https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
(as of 2026-11-21). A query is for one instance type in all regions, or for all types in one region;
whichever takes fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.parallel import results, run_all
from gpucloud.replies import Rows
from gpucloud_aws.api import PageOfProducts, Product
from gpucloud_aws.reader import PRICING

if TYPE_CHECKING:
    from gpucloud_aws.account import Account

SOURCE: Final = "pricing:GetProducts"
PRICES_AT: Final = "us-east-1"
"""The price list of all commercial regions is served from here."""

PAGES: Final = 12
"""How many pages all Linux instance types of a region take, about."""

AT_ONCE: Final = 12
"""How many queries are under way together: AWS throttles more."""

WANTED: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def read(account: Account, types: Mapping[str, Set[str]]) -> Mapping[tuple[str, str], Decimal]:
    """Dollars for an hour by instance type and region. Raises what a read over the network raises."""
    queries = _queries(types)
    shares = {first: queries[first::AT_ONCE] for first in range(min(AT_ONCE, len(queries)))}
    answers = run_all({first: partial(_asked, account, share) for first, share in shares.items()})
    wanted = {(name, region) for region, names in types.items() for name in names}
    usd: dict[tuple[str, str], Decimal] = {}
    for told in results(answers).values():
        for key, price in told:
            if key in wanted:
                # Of lines that nobody can tell apart the dearest counts, so that no price is told too low.
                usd[key] = max(price, usd.get(key, price))
    return usd


def _queries(types: Mapping[str, Set[str]]) -> Sequence[Mapping[str, str]]:
    regions = sorted(region for region, names in types.items() if names)
    names = sorted(set().union(*types.values()))
    if len(names) > PAGES * len(regions):
        return [{"regionCode": region} for region in regions]
    within = {"regionCode": regions[0]} if len(regions) == 1 else {}
    return [{"instanceType": name, **within} for name in names]


def _asked(account: Account, queries: Sequence[Mapping[str, str]]) -> list[tuple[tuple[str, str], Decimal]]:
    return Rows(account.provider).read(_price, _products(account, queries))


def _products(account: Account, queries: Sequence[Mapping[str, str]]) -> Iterator[Any]:
    for query in queries:
        filters = [
            {"Type": "TERM_MATCH", "Field": name, "Value": value}
            for name, value in {**WANTED, **query}.items()
        ]
        asked = {"ServiceCode": "AmazonEC2", "Filters": filters, "FormatVersion": "aws_v1"}
        yield from account.reader.json(PRICING, PRICES_AT, "GetProducts", asked, PageOfProducts)


def _price(text: str) -> tuple[tuple[str, str], Decimal] | None:
    product = Product.model_validate_json(text)
    usd, of = product.usd, product.product.attributes
    return None if usd is None else ((of.instance_type, of.region), usd)
