"""Prime Intellect in our words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.account_keys import AccountKey, AccountKeys
from gpucloud.catalog.currencies import to_usd
from gpucloud.errors import BadReply, NotFound
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
from gpucloud.replies import Rows, ours
from gpucloud.rest import RestProvider
from gpucloud_primeintellect.offers import NAME, disk_of, offer_of, type_name
from gpucloud_primeintellect.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_primeintellect import api

API_KEY: Final = Credential(
    "api_key",
    ("PRIME_API_KEY",),
    (VendorFile("~/.prime/config.json", FileFormat.JSON, "api_key"),),
    page="https://app.primeintellect.ai/dashboard/tokens",
)
SSH_PORT: Final = 22
CENT_OF_CENT: Final = Decimal("0.0001")
MOST_PAGES: Final = 100
"""Whatever is answered, nothing is asked for ever."""

ACTIVE: Final = "ACTIVE"
STATES: Final = {
    "PROVISIONING": InstanceState.PENDING,
    "PENDING": InstanceState.PENDING,
    ACTIVE: InstanceState.RUNNING,
    "STOPPED": InstanceState.STOPPED,
    "ERROR": InstanceState.FAILED,
    "DELETING": InstanceState.TERMINATING,
    "TERMINATED": InstanceState.TERMINATED,
}

At = Callable[[int, int], Mapping[str, Any]]
"""What to ask for a page by, from its number and how many rows there were before it."""


class Primeintellect(AccountKeys, RestProvider):
    """Prime Intellect: one account for some twenty clouds and data centres."""

    name = NAME
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=255,
        idempotent_launch=False,
        listing_lag_s=10,
        console="https://app.primeintellect.ai",
        end_command="prime pods terminate {id}",
    )

    url = "https://api.primeintellect.ai"
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each configuration in each data centre, with so large a disk as is wanted, if that has a price."""
        counts = {wish.count for wish in requirements.gpus}
        asked = {"gpu_count": counts.pop()} if len(counts) == 1 else {}
        return self._sold(asked, requirements.min_disk_gib)[0]

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key is in the account afterwards."""
        from gpucloud_primeintellect import api

        count, _, gpu_type = offer.instance_type.rpartition("/")[2].partition("x")
        sold, lines = self._sold({"gpu_type": gpu_type, "gpu_count": count}, spec.disk_gib)
        self._still_sold(offer, sold)
        line = lines[offer.id, offer.ref]
        pod: dict[str, Any] = {
            "name": to_text(spec.tags),
            "cloudId": line.cloud_id,
            "gpuType": line.gpu_type,
            "socket": line.socket,
            # What has no GPUs is counted by machines.
            "gpuCount": line.gpu_count or 1,
            "security": line.security,
            "sshKeyId": self._key(spec),
            **_image(line, spec.image),
        }
        optional = {
            "dataCenterId": line.data_center,
            "country": line.country,
            "diskSize": disk_of(line, spec.disk_gib) if spec.disk_gib else None,
            "maxPrice": self._most(spec.max_usd_per_hour, offer.currency),
        }
        pod |= {name: value for name, value in optional.items() if value is not None}
        wanted = {"pod": pod, "provider": {"type": line.provider}}
        made = self._read(api.Made.model_validate, self._http.post(api.PODS, json=wanted), sent=True)
        return spec.begun(offer, InstanceRef(made.id))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from gpucloud_primeintellect import api

        told = self._read(api.Pod.model_validate, self._http.get(f"{api.PODS}{ref.id}"))
        if told.status == ACTIVE and address(told.ssh_connection) is None:
            reply = self._http.get(api.STATUS, params={"pod_ids": ref.id})
            each = self._read(api.Statuses.model_validate, reply).data or []
            told.ssh_connection = next((one.ssh_connection for one in each if one.pod_id == ref.id), None)
        return self._instance(told)

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_primeintellect import api

        rows = self._rows(api.PODS, _from_row)
        return ours(self._instance(self._read(api.Pod.model_validate, row)) for row in rows)

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        from gpucloud_primeintellect.api import PODS

        with suppress(NotFound):
            self._http.delete(f"{PODS}{ref.id}")

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account."""
        from gpucloud_primeintellect.api import SSH_KEYS, SshKey

        for row in self._rows(SSH_KEYS, _from_row):
            key = self._read(SshKey.model_validate, row)
            yield AccountKey(key.id, key.id, key.name, key.public_key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one."""
        from gpucloud_primeintellect.api import SSH_KEYS, Made

        reply = self._http.post(SSH_KEYS, json={"name": name, "publicKey": public_key})
        return self._read(Made.model_validate, reply).id

    def delete_account_key(self, id: str) -> None:
        """Delete one; machines that run keep it."""
        from gpucloud_primeintellect.api import SSH_KEYS

        self._http.delete(f"{SSH_KEYS}{id}")

    def _sold(
        self, asked: Mapping[str, Any], disk_gib: int | None
    ) -> tuple[list[Offer], dict[tuple[str, str], api.Line]]:
        """The offers, and the line that each is of by its id and reference."""
        from gpucloud_primeintellect.api import AVAILABILITY, PAGE_SIZE, Line

        def at(number: int, before: int) -> Mapping[str, Any]:
            return {**asked, "page": number, "page_size": PAGE_SIZE}

        reply, now, lines = Rows(self.name), utcnow(), dict[tuple[str, str], Line]()
        for row in self._rows(AVAILABILITY, at):
            with reply.row():
                line = Line.model_validate(row)
                offer = offer_of(line, disk_gib, now, self.settings.rates)
                lines[offer.id, offer.ref] = line
                reply.add([offer])
        return reply.offers(), lines

    def _rows(self, path: str, at: At) -> Iterator[Any]:
        """Every row of a listing. Raises ``BadReply`` when it has no end."""
        from gpucloud_primeintellect.api import Page

        before = 0
        for number in range(1, MOST_PAGES + 1):
            page = self._read(Page.model_validate, self._http.get(path, params=at(number, before)))
            yield from page.rows
            before += len(page.rows)
            if not page.rows or (page.total and before >= page.total):
                return
        what = f"{self.name} sent a listing without end"
        raise BadReply(what, provider=self.name, why=f"{path} has more than {MOST_PAGES} pages")

    def _most(self, usd_per_hour: Decimal | None, currency: str) -> float | None:
        """The cap as the vendor's number, which is no more than it in dollars and in that currency."""
        if usd_per_hour is None:
            return None
        rate = to_usd(Decimal(1), currency, self.settings.rates).usd
        return float(min(usd_per_hour, usd_per_hour / rate).quantize(CENT_OF_CENT, ROUND_FLOOR))

    def _instance(self, told: api.Pod) -> Instance:
        state = STATES.get(told.status or "", InstanceState.UNKNOWN)
        # The machine is there, and billed, but the image that was wanted is not on it.
        if state is InstanceState.RUNNING and told.installation_status == "ERROR":
            state = InstanceState.FAILED
        return Tagged.read(from_text(told.name or "")).instance(
            self.name,
            InstanceRef(told.id),
            state,
            ssh=address(told.ssh_connection),
            instance_type=type_name(told.provider_type, told.gpu_count, told.gpu_name),
            market=Market.SPOT if told.is_spot else Market.ON_DEMAND,
            usd_per_hour=told.price_hr,
        )


def _from_row(number: int, before: int) -> Mapping[str, Any]:
    from gpucloud_primeintellect.api import PAGE_SIZE

    return {"offset": before, "limit": PAGE_SIZE}


def _image(line: api.Line, wanted: str | None) -> dict[str, str]:
    """What is to be on it: an image by its name or a template by its id, else the usual image."""
    from gpucloud_primeintellect.api import IMAGE, TEMPLATE

    if wanted and re.fullmatch("c[a-z0-9]{24}", wanted):
        return {"image": TEMPLATE, "customTemplateId": wanted}
    usual = IMAGE if IMAGE in line.images else next(iter(line.images), None)
    image = wanted or usual
    return {"image": image} if image else {}


def address(connection: object) -> SshAddress | None:
    """Where SSH answers, by a text such as ``root@192.0.2.1 -p 22`` or the first of several."""
    texts = connection if isinstance(connection, list) else [connection]
    for text in (one for one in texts if isinstance(one, str)):
        login = re.search(r"([^\s@]+)@([^\s@]+)", text)
        port = re.search(r"-p\s*([0-9]{1,5})\b", text)
        if login:
            return SshAddress(login[2], int(port[1]) if port else SSH_PORT, login[1])
    return None
