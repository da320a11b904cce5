"""acme in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from gpucloud.errors import BadReply, NoCapacity, NotFound, ProviderError
from gpucloud.http import HttpClient
from gpucloud.model import (
    Availability,
    Gpu,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SideResource,
    SshAddress,
    utcnow,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Traits,
)
from gpucloud.replies import Rows, understood

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tests.harness.acme.api import Thing, Type

    M = TypeVar("M", bound=BaseModel)

API_KEY: Final = Credential("api_key", ("ACME_API_KEY",), page="https://console.acme.example/keys")
BASE_URL: Final = "https://api.acme.example"
STATES: Final = {
    "starting": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopped": InstanceState.STOPPED,
    "terminating": InstanceState.TERMINATING,
    "gone": InstanceState.TERMINATED,
}
AVAILABILITY: Final = {
    True: Availability.AVAILABLE,
    False: Availability.UNAVAILABLE,
    None: Availability.UNKNOWN,
}


class Acme(Provider):
    """Virtual machines of acme, which nothing leads into."""

    name: ClassVar[str] = "acme"
    evidence = Evidence.LIVE
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    rehearsable = True
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.NONE,
        fuse=Fuse.PROVIDER,
        billing_grain_s=1,
        billing_minimum_s=0,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=63,
        idempotent_launch=False,
        listing_lag_s=0.5,
        console="https://console.acme.example/instances/{id}",
        end_command="acme instances delete {id}",
    )

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When there is a key."""
        return settings.credential_source(API_KEY) is not None

    @cached_property
    def _http(self) -> HttpClient:
        headers = {"Authorization": f"Bearer {self.settings.credential(API_KEY)}"}
        url = self.settings.table.get("url", BASE_URL)
        return self.client(self.name, url, headers=headers, classify=_classify)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """The price list."""
        from tests.harness.acme.api import TYPES, Type

        rows = Rows(self.name)
        for row in self._rows(TYPES):
            with rows.row():
                rows.add([self._offer(Type.model_validate(row))])
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; acme makes a disk and an address with it, and ends them with it."""
        from tests.harness.acme.api import INSTANCES, Thing

        wanted = {
            "type": offer.instance_type,
            "region": offer.region,
            "market": offer.market,
            "tags": spec.tags,
            "ssh_key": spec.public_key,
            "image": spec.image,
            "disk_gib": spec.disk_gib,
            "expires_at": spec.expires_at and spec.expires_at.isoformat(),
        }
        return self._instance(self._read(Thing, self._http.post(INSTANCES, json=wanted), sent=True))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from tests.harness.acme.api import INSTANCES, Thing

        return self._instance(self._read(Thing, self._http.get(f"{INSTANCES}/{ref.id}")))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from tests.harness.acme.api import INSTANCES

        for thing in self._tagged(INSTANCES):
            yield self._instance(thing)

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        from tests.harness.acme.api import INSTANCES

        with suppress(NotFound):
            self._http.delete(f"{INSTANCES}/{ref.id}")

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; its disk and its address bill on."""
        from tests.harness.acme.api import INSTANCES

        self._http.post(f"{INSTANCES}/{ref.id}/stop")

    def start(self, ref: InstanceRef) -> None:
        """Start one again."""
        from tests.harness.acme.api import INSTANCES

        self._http.post(f"{INSTANCES}/{ref.id}/start")

    def expire(self, ref: InstanceRef, at: datetime) -> None:
        """Let acme end it then."""
        from tests.harness.acme.api import INSTANCES

        self._http.patch(f"{INSTANCES}/{ref.id}", json={"expires_at": at.astimezone(UTC).isoformat()})

    def side_resources(self) -> Iterable[SideResource]:
        """The disks and addresses that carry our tag."""
        from tests.harness.acme.api import RESOURCES

        for thing in self._tagged(RESOURCES):
            yield SideResource(
                provider=self.name,
                kind=thing.kind,
                ref=InstanceRef(thing.id, thing.region),
                token=thing.tags.get("gpucloud-token"),
                cluster=thing.tags.get("gpucloud-name"),
                owner=thing.tags.get("gpucloud-owner"),
                usd_per_hour=thing.usd_per_hour,
            )

    def remove(self, resource: SideResource) -> None:
        """Delete a disk or an address; acme refuses while an instance uses it."""
        from tests.harness.acme.api import RESOURCES

        with suppress(NotFound):
            self._http.delete(f"{RESOURCES}/{resource.ref.id}")

    def _tagged(self, path: str) -> Iterator[Thing]:
        from tests.harness.acme.api import Thing

        for row in self._rows(path):
            thing = self._read(Thing, row)
            if "gpucloud-token" in thing.tags:
                yield thing

    def _rows(self, path: str) -> Iterator[Any]:
        """Every row of a listing, from all its pages."""
        from tests.harness.acme.api import Page

        cursor, known = "", set[str]()
        while cursor not in known:
            known.add(cursor)
            page = self._read(Page, self._http.get(path, params={"cursor": cursor} if cursor else None))
            yield from page.items
            if page.next is None:
                return
            cursor = page.next
        what = "acme sent a reply that cannot be read"
        raise BadReply(what, provider=self.name, why=f"the pages of {path} go in a circle")

    def _read(self, model: type[M], body: object, *, sent: bool = False) -> M:
        """A reply as what it should be; ``sent`` when it answers something that may have taken effect."""
        return understood(self.name, model.model_validate, body, sent=sent)

    def _offer(self, line: Type) -> Offer:
        return Offer(
            provider=self.name,
            instance_type=line.name,
            market=line.market,
            usd_per_hour=line.usd_per_hour,
            amount=line.usd_per_hour,
            as_of=utcnow(),
            source="acme",
            gpu=Gpu.parse(line.gpu) if line.gpu else None,
            gpu_count=line.gpus,
            region=line.region,
            availability=AVAILABILITY[line.available],
        )

    def _instance(self, thing: Thing) -> Instance:
        rank = thing.tags.get("gpucloud-rank", "")
        return Instance(
            provider=self.name,
            ref=InstanceRef(thing.id, thing.region),
            state=STATES.get(thing.status, InstanceState.UNKNOWN),
            token=thing.tags.get("gpucloud-token"),
            cluster=thing.tags.get("gpucloud-name"),
            rank=int(rank) if rank.isdecimal() else None,
            owner=thing.tags.get("gpucloud-owner"),
            ssh=SshAddress(thing.ssh.host, thing.ssh.port, thing.ssh.user) if thing.ssh else None,
            created_at=thing.created_at,
            instance_type=thing.type,
            market=thing.market,
            usd_per_hour=thing.usd_per_hour,
        )


class AcmeSsh(Acme):
    """The same where SSH answers."""

    traits = replace(Acme.traits, reach=Reach.SSH_KEY)


def _classify(status: int, body: Any) -> ProviderError | None:
    """acme tells only in prose that it has none left."""
    if status == 400 and "no capacity" in str(body):
        return NoCapacity("acme: none is left", provider=Acme.name)
    return None
