"""Vast.ai in our words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NoCapacity, NotFound, Rejected
from gpucloud.http import HttpClient
from gpucloud.labels import from_text, to_text
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    FileFormat,
    Fuse,
    Kind,
    LaunchSpec,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
    VendorFile,
)
from gpucloud.replies import Rows, every_row, ours
from gpucloud.rest import RestProvider
from gpucloud_vast.catalog import VastCatalog, offer_of, pages
from gpucloud_vast.container import SELF_END, on_start
from gpucloud_vast.refusals import REFUSALS
from gpucloud_vast.search import MARKETS, search

if TYPE_CHECKING:
    from gpucloud_vast import api

API_KEY: Final = Credential(
    "api_key",
    ("VAST_API_KEY",),
    files=(
        VendorFile("~/.config/vastai/vast_api_key", FileFormat.PLAIN),
        VendorFile("~/.vast_api_key", FileFormat.PLAIN),
    ),
    page="https://cloud.vast.ai/manage-keys/",
)
IMAGE: Final = "vastai/base-image:@vastai-automatic-tag"
"""What its document has for an image by default (2026-08-07); the tag becomes that of the machine's CUDA."""

DISK_GIB: Final = 32
"""Its own default is 8, which the packages of one environment fill."""

STATES: Final = {
    None: InstanceState.PENDING,
    "created": InstanceState.PENDING,
    "loading": InstanceState.PENDING,
    "rebooting": InstanceState.PENDING,
    "restarting": InstanceState.PENDING,
    "recycling": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopped": InstanceState.STOPPED,
    "exited": InstanceState.STOPPED,
    # Its processes rest and its GPU is billed, so it neither runs nor is stopped.
    "frozen": InstanceState.UNKNOWN,
    # The machine is not heard of; by the vendor's own advice it is not to be waited for.
    "offline": InstanceState.FAILED,
}
CREATE_INTERVAL_S: Final = 4.5
DESTROY_INTERVAL_S: Final = 3.0


class Vast(VastCatalog, RestProvider):
    """Containers on other people's machines."""

    name = "vast"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.CONTAINER,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.HOST,
        billing_grain_s=1,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=1024,
        idempotent_launch=False,
        listing_lag_s=30,
        self_end=SELF_END,
        usual_disk_gib=DISK_GIB,
        console="https://cloud.vast.ai/instances/",
        end_command="vastai destroy instance {id}",
    )

    url = "https://console.vast.ai"
    min_interval_s = 1
    refusals = REFUSALS

    @cached_property
    def _creations(self) -> HttpClient:
        return self._client(CREATE_INTERVAL_S)

    @cached_property
    def _endings(self) -> HttpClient:
        return self._client(DESTROY_INTERVAL_S)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """What can be rented on demand, and what can be had for a bid: two searches, for rows count.

        Each list is read up to the page that has nothing within ``requirements.max_usd_per_hour``.
        """
        rows, now = Rows(self.name), utcnow()
        for market in MARKETS:
            if requirements.markets and market not in requirements.markets:
                continue
            ask = partial(self._asked, rows, market, requirements)
            for page in pages(ask, f"{self.name}, {market}"):
                read = [offer for row in page for offer in self._offer(rows, row, market, now)]
                rows.add(read)
                if read and not any(_within(offer, requirements) for offer in read):
                    break
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Accept an offer; for one by bid, what it was quoted at is bid, for a bid is what is paid.

        It is not left waiting for a GPU that is not free.
        """
        from gpucloud_vast.api import ASKS, Created

        wanted: dict[str, Any] = {
            "image": spec.image or IMAGE,
            "label": to_text(spec.tags),
            "disk": spec.disk_gib or DISK_GIB,
            "runtype": "ssh_direct",
            "target_state": "running",
            "cancel_unavail": True,
            "onstart": on_start(spec),
        }
        if offer.market is Market.SPOT:
            caps = [cap for cap in (offer.usd_per_hour, spec.max_usd_per_hour) if cap is not None]
            wanted["price"] = float(min(caps))
        reply = self._creations.put(f"{ASKS}/{offer.ref}/", json=wanted)
        self._check(reply, sent=True)
        made = self._read(Created.model_validate, reply, sent=True)
        return spec.begun(offer, InstanceRef(str(made.new_contract)))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now, out of the listing: alone it is told in another shape."""
        from gpucloud_vast.api import LISTING, Page

        only = {"select_filters": json.dumps({"id": {"eq": int(_number(ref))}})}
        page = self._read(Page.model_validate, self._http.get(LISTING, params=only))
        found = next((one for one in map(self._instance, page.instances) if one.ref.id == ref.id), None)
        if found is None:
            raise _missing(ref)
        return found

    def instances(self) -> Iterable[Instance]:
        """Everything that has our tags for a label."""
        return ours(map(self._instance, self._rows()))

    def terminate(self, ref: InstanceRef) -> None:
        """Destroy one with its disk; a missing one is success."""
        with suppress(NotFound):
            self._check(self._endings.delete(_path(ref)))

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; its disk bills on, and its GPU is free for others."""
        self._set(ref, "stopped")

    def start(self, ref: InstanceRef) -> None:
        """Start one. Raises ``NoCapacity`` when its GPU is somebody else's by now.

        It would start, and bill, whenever that is free again; so it is told to stay stopped.
        """
        try:
            self._set(ref, "running")
        except NoCapacity:
            self._set(ref, "stopped")
            raise

    def _set(self, ref: InstanceRef, state: str) -> None:
        self._check(self._http.put(_path(ref), json={"state": state}))

    def _offer(self, rows: Rows, row: Any, market: Market, now: datetime) -> list[Offer]:
        """A row as an offer; none for one that is at fault, or has no GPU."""
        from gpucloud_vast.api import Row

        with rows.row():
            told = Row.model_validate(row)
            return [offer_of(self.name, told, market, now)] if told.num_gpus else []
        return []

    def _asked(
        self, rows: Rows, market: Market, requirements: Requirements, price: Mapping[str, float]
    ) -> list[Any]:
        """One page of offers."""
        from gpucloud_vast.api import SEARCH, Reply

        reply = self._http.query(SEARCH, json=search(market, requirements, price))
        return rows.envelope(Reply.model_validate, reply).offers

    def _rows(self) -> Iterator[Any]:
        """All instances of the account, page by page."""
        from gpucloud_vast.api import LISTED, LISTING, Page

        def page(token: str | None) -> tuple[list[Any], str | None]:
            after = {"after_token": token} if token else {}
            reply = self._http.get(LISTING, params={"limit": LISTED, **after})
            told = self._read(Page.model_validate, reply)
            return told.instances, told.next_token or None

        return every_row(self.name, LISTING, page)

    def _check(self, reply: Any, *, sent: bool = False) -> None:
        """Raise ``Rejected`` for a reply by which nothing was done although its status is that of success."""
        from gpucloud_vast.api import Done

        done = self._read(Done.model_validate, reply, sent=sent)
        if not done.success:
            raise Rejected(f"{self.name} refused the request", provider=self.name, vendor_text=done.msg or "")

    def _instance(self, row: Any) -> Instance:
        from gpucloud_vast.api import Instance as Told

        told = self._read(Told.model_validate, row)
        state = _state(told)
        return Tagged.read(from_text(told.label or "")).instance(
            self.name,
            InstanceRef(str(told.id)),
            state,
            ssh=_ssh(told) if state is InstanceState.RUNNING else None,
            instance_type=told.gpu_name,
            market=None if told.is_bid is None else Market.SPOT if told.is_bid else Market.ON_DEMAND,
            usd_per_hour=told.dph_base,
            interrupted=bool(told.is_bid) and state is InstanceState.STOPPED,
        )


def _within(offer: Offer, requirements: Requirements) -> bool:
    most = requirements.max_usd_per_hour
    return most is None or offer.usd_per_hour <= most


def _state(told: api.Instance) -> InstanceState:
    from gpucloud_vast.api import NEVER_STARTS

    state = STATES.get(told.actual_status, InstanceState.UNKNOWN)
    coming = state is InstanceState.PENDING
    if coming and re.search(NEVER_STARTS, told.status_msg or "", re.IGNORECASE):
        return InstanceState.FAILED
    if told.intended_status == "stopped" and (coming or state is InstanceState.RUNNING):
        halted = coming and told.cur_state == "stopped"
        return InstanceState.STOPPED if halted else InstanceState.STOPPING
    if told.intended_status == told.cur_state == "running" and state is InstanceState.STOPPED:
        return InstanceState.PENDING
    return state


def _ssh(told: api.Instance) -> SshAddress | None:
    """Where SSH answers: the machine itself if it has a port open, else Vast.ai's relay."""
    direct = (told.ports or {}).get("22/tcp") or []
    if told.public_ipaddr and direct and direct[0].HostPort:
        return SshAddress(told.public_ipaddr, direct[0].HostPort)
    if told.ssh_host and told.ssh_port:
        return SshAddress(told.ssh_host, told.ssh_port)
    return None


def _path(ref: InstanceRef) -> str:
    from gpucloud_vast.api import INSTANCES

    return f"{INSTANCES}/{_number(ref)}/"


def _number(ref: InstanceRef) -> str:
    """The id of an instance. Raises ``NotFound`` for what is none, which it would refuse as malformed."""
    if not re.fullmatch("[0-9]{1,18}", ref.id):
        raise _missing(ref)
    return ref.id


def _missing(ref: InstanceRef) -> NotFound:
    return NotFound(f"{Vast.name}: there is no instance {ref.id!r}", provider=Vast.name)
