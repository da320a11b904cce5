"""Google's past spot prices as offers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from gpucloud.catalog.currencies import to_usd
from gpucloud.catalog.names import named
from gpucloud.errors import BadReply, NotFound, ProviderError, RateLimited, Rejected
from gpucloud.http import HttpClient
from gpucloud.model import Gpu, Market, Offer, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.provider import Adapter, Evidence
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud_gcp.api import MachineType, Preemption, Price

log = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""So many requests are under way at a time."""

MIB_IN_GIB: Final = 1024


@dataclass(frozen=True, slots=True)
class _Machine:
    """One machine type in one region. ``memory_gib`` is what it has beside its GPUs."""

    region: str
    name: str
    gpu: Gpu
    gpu_count: int
    vcpus: int | None
    memory_gib: Decimal | None


class PastPrices(Adapter):
    """What spot machines have cost."""

    name: ClassVar[str] = "gcp"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)

    def spot_history(self, since: datetime, regions: Sequence[str]) -> Iterable[Offer]:
        """Every price of spot machines with built-in GPUs that held at some time since ``since``.

        Each is in US dollars for an hour of the whole machine, as of the moment from which on it held: of the
        one that held at ``since`` that is earlier. ``regions`` are names such as ``us-central1``; without any
        those of the setting ``catalog_regions``, a list or a text with commas, else some that most people
        want. A machine type of which Google tells nothing is left out.

        Raises ``AuthError`` without credentials, for those that Google refuses and where its interface is
        switched off, ``ConfigError`` without google-auth, ``NotFound`` for a region that does not exist,
        ``RateLimited``, ``Unreachable``, ``Rejected`` or ``BadReply``.
        """
        from gpucloud_gcp.api import URL
        from gpucloud_gcp.auth import identify

        who, now = identify(self.settings), utcnow()
        project = quote(who.project, safe=":")
        url = self.settings.table.get("endpoint_url", URL)
        with self.client(self.name, url, headers=who.headers, classify=self._too_often) as http:
            machines = self._machines(http, project, self._wanted(regions))
            return self._histories(http, project, machines, since, now)

    def _wanted(self, regions: Sequence[str]) -> list[str]:
        from gpucloud_gcp.api import DEFAULT_REGIONS

        texts = regions or self.settings.names("catalog_regions") or DEFAULT_REGIONS
        names = (text.strip().lower() for text in texts)
        return list(dict.fromkeys(name for name in names if name))

    def _too_often(self, status: int, body: Any) -> ProviderError | None:
        """Google says "later" with the status of "never", too."""
        from gpucloud_gcp.api import TOO_OFTEN, Failure

        with suppress(ValueError):
            if status == 403 and Failure.model_validate(body).reasons & TOO_OFTEN:
                return RateLimited(f"{self.name} was asked too often", provider=self.name)
        return None

    def _machines(self, http: HttpClient, project: str, regions: Sequence[str]) -> list[_Machine]:
        """Every machine type with GPUs, once in each region. Raises ``NotFound`` for an unknown region."""
        rows = Rows(self.name)
        listed = ((region, row) for region, row in self._rows(http, project, rows) if region in regions)
        found = {(one.region, one.name): one for one in rows.read(_machine, listed)}
        for region in regions:
            if region not in {machine.region for machine in found.values()}:
                self._check(http, project, region)
        return list(found.values())

    def _rows(self, http: HttpClient, project: str, rows: Rows) -> Iterator[tuple[str, object]]:
        """All machine types as they came, each with its region."""
        from gpucloud_gcp.api import ASKED, MACHINE_TYPES, Page

        token, known = "", set[str]()
        while token not in known:
            known.add(token)
            params = {**ASKED, **({"pageToken": token} if token else {})}
            page = rows.envelope(
                Page.model_validate, http.get(MACHINE_TYPES.format(project=project), params=params)
            )
            if page.unreachables:
                log.debug("%s could not list all zones: %s", self.name, page.unreachables)
            for scope, inside in page.items.items():
                # A zone is a region, a hyphen and a letter.
                region = scope.rpartition("/")[2].rpartition("-")[0]
                yield from ((region, row) for row in inside.machine_types)
            token = page.next_page_token
            if not token:
                return
        raise rows.bad("the pages of machine types go in a circle")

    def _check(self, http: HttpClient, project: str, region: str) -> None:
        """Tell a region without GPUs from one that does not exist."""
        from gpucloud_gcp.api import REGION

        why = "it is not written like a region"
        if re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", region):
            try:
                http.get(REGION.format(project=project, region=region))
            except NotFound as error:
                why = error.why
            else:
                log.debug("%s lists no machines with GPUs in %s", self.name, region)
                return
        raise NotFound(
            f"{self.name} has no region {region!r}",
            provider=self.name,
            why=why,
            hint="gcloud compute regions list",
        )

    def _histories(
        self, http: HttpClient, project: str, machines: Sequence[_Machine], since: datetime, now: datetime
    ) -> list[Offer]:
        """The past of all machines, some at a time. What cannot be told of one is raised if none is told."""
        read = partial(self._some, http, project, since=since, now=now)
        shares = {first: partial(read, machines[first::AT_ONCE]) for first in range(AT_ONCE)}
        told = [one for share in results(run_all(shares)).values() for one in share]
        refused = [one for one in told if isinstance(one, ProviderError)]
        if refused and len(refused) == len(told):
            raise refused[0]
        return [offer for one in told if isinstance(one, list) for offer in one]

    def _some(
        self, http: HttpClient, project: str, machines: Sequence[_Machine], since: datetime, now: datetime
    ) -> list[list[Offer] | ProviderError]:
        """For each machine its offers, or why there are none. Raises what would befall the others as well."""
        from gpucloud_gcp.api import PREEMPTION, PRICE

        told: list[list[Offer] | ProviderError] = []
        for machine in machines:
            try:
                answer = ask(http, project, machine.region, machine.name, PRICE, PREEMPTION)
                told.append(self._offers(machine, answer, since, now))
            except (BadReply, NotFound, Rejected) as error:
                log.debug("%s: %s is left out in %s: %s", self.name, machine.name, machine.region, error.why)
                told.append(error)
        return told

    def _offers(self, machine: _Machine, body: object, since: datetime, now: datetime) -> list[Offer]:
        """An offer for each price that held since ``since``. Raises ``BadReply``."""
        from gpucloud_gcp.api import History, Price

        rows = Rows(self.name)
        past = rows.envelope(History.model_validate, body)
        zone = re.search("(?:^|/)zones/([^/]+)$", past.location)
        rates = rates_until(past.preemption_history, now)

        def offer(row: object) -> Offer | None:
            price = Price.model_validate(row)
            if price.interval.start_time > now or not price.interval.reaches(since, None):
                return None
            return self._offer(machine, zone[1] if zone else None, price, rates)

        return rows.read(offer, past.price_history)

    def _offer(
        self, machine: _Machine, zone: str | None, price: Price, rates: Sequence[Preemption]
    ) -> Offer | None:
        """A price as an offer, ``None`` where none is told. Raises ``ValueError`` for an unknown currency."""
        money = price.list_price
        if money is None or money.amount <= 0:
            return None
        return Offer(
            provider=self.name,
            instance_type=machine.name,
            market=Market.SPOT,
            usd_per_hour=to_usd(money.amount, money.currency_code, self.settings.rates).usd,
            currency=money.currency_code,
            amount=money.amount,
            as_of=price.interval.start_time,
            source="compute.googleapis.com advice.capacityHistory",
            confidence="history",
            gpu=machine.gpu,
            gpu_count=machine.gpu_count,
            region=machine.region,
            zone=zone,
            vcpus=machine.vcpus,
            memory_gib=machine.memory_gib,
            availability_detail=last_rate(price, rates),
        )


def _machine(listed: tuple[str, object]) -> _Machine | None:
    """A machine with GPUs, ``None`` for one without. Raises ``ValueError`` when it cannot be understood."""
    from gpucloud_gcp.api import MachineType

    region, row = listed
    kind = MachineType.model_validate(row)
    if not kind.accelerators:
        return None
    gpu, count = gpus_of(kind)
    memory = kind.memory_mb / MIB_IN_GIB if kind.memory_mb else None
    return _Machine(region, kind.name, gpu, count, kind.guest_cpus, memory)


def gpus_of(kind: MachineType) -> tuple[Gpu, int]:
    """The accelerators of a machine type that has some. Raises ``ValueError`` for several kinds of them."""
    from gpucloud_gcp.api import ACCELERATORS

    first, *others = kind.accelerators
    if others:
        raise ValueError(f"{kind.name} has several kinds of accelerators")
    text = first.guest_accelerator_type
    return named(ACCELERATORS.get(text, text)), first.guest_accelerator_count


def ask(http: HttpClient, project: str, region: str, machine_type: str, *what: str) -> object:
    """What Google tells of the past of a machine type in a region. Raises what a read raises."""
    from gpucloud_gcp.api import HISTORY, question

    path = HISTORY.format(project=project, region=region)
    answer: object = http.query(path, json=question(machine_type, *what))
    return answer


def rates_until(records: Iterable[object], now: datetime) -> list[Preemption]:
    """The preemption rates that are told until now, the latest last; what cannot be read is left out."""
    from gpucloud_gcp.api import Preemption

    found: list[Preemption] = []
    for record in records:
        with suppress(ValueError):
            one = Preemption.model_validate(record)
            if one.preemption_rate is not None and one.interval.start_time <= now:
                found.append(one)
    return sorted(found, key=lambda one: one.interval.start_time)


def last_rate(price: Price, rates: Sequence[Preemption]) -> str | None:
    """The last preemption rate of the time when a price held, in Google's words."""
    held = price.interval
    during = [one for one in rates if one.interval.reaches(held.start_time, held.end_time)]
    return f"preemptionRate {during[-1].preemption_rate}" if during else None
