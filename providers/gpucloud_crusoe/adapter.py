"""Crusoe in our words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gpucloud.errors import NotFound, ProviderError, Rejected
from gpucloud.http import HttpClient
from gpucloud.labels import from_host_name, to_host_name
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
)
from gpucloud.replies import Rows, every_row, ours
from gpucloud.rest import RestProvider
from gpucloud_crusoe.images import drivers_for, newest_for
from gpucloud_crusoe.machines import MARKETS, ssh_of, state_of
from gpucloud_crusoe.offers import offers_of
from gpucloud_crusoe.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_crusoe import api

PAGE: Final = "https://console.crusoecloud.com/security/tokens"
ACCESS_KEY: Final = Credential("access_key", ("CRUSOE_ACCESS_KEY_ID", "CRUSOE_ACCESS_KEY"), page=PAGE)
SECRET_KEY: Final = Credential("secret_key", ("CRUSOE_SECRET_KEY",), page=PAGE)
NAME_LENGTH: Final = 63
REFUSED: Final = 400
LOOKS: Final = 8
LOOK_S: Final = 1
"""For how long a launch looks whether its operation fails, as it does at once when there is no machine."""


class Crusoe(RestProvider):
    """Crusoe's virtual machines."""

    name = "crusoe"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (ACCESS_KEY, SECRET_KEY)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.POWER_OFF,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNKNOWN,
        name_length=NAME_LENGTH,
        idempotent_launch=False,
        listing_lag_s=30,
        console="https://console.crusoecloud.com/compute/instances",
    )

    url = "https://api.cloud.crusoe.ai/v1"
    refusals = REFUSALS

    def _client(self, min_interval_s: float) -> HttpClient:
        from gpucloud_crusoe.signing import signed

        access, secret = (self.settings.credential(key) for key in self.credentials)
        url, sign = self.settings.table.get("url", self.url), partial(signed, access, secret)
        return self.client(self.name, url, sign=sign, classify=self._refusal, min_interval_s=min_interval_s)

    @cached_property
    def _project(self) -> str:
        """Where machines are: the project of the settings, or the only one there is."""
        from gpucloud_crusoe.api import PROJECTS, Project

        chosen = str(self.settings.table.get("project") or "")
        if re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", chosen):
            return chosen
        listed = [self._read(Project.model_validate, row) for row in self._rows(PROJECTS)]
        fitting = [project.id for project in listed if chosen in ("", project.name, project.id)]
        return quote(self._only("project", fitting, [project.name for project in listed]), safe="")

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each type with a known price in each place that has some; of the others no place is told."""
        from gpucloud_crusoe.api import CAPACITIES, TYPES, Capacity, Type

        rows = Rows(self.name)
        places: dict[str, list[Capacity]] = defaultdict(list)
        for free in rows.read(Capacity.model_validate, self._rows(CAPACITIES)):
            places[free.type].append(free)
        quotas = self._quotas()
        for row in self._rows(TYPES.format(project=self._project)):
            with rows.row():
                kind = Type.model_validate(row)
                rows.add(offers_of(self.name, kind, places[kind.product_name], quotas))
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one, and look for some seconds whether there is none after all."""
        from gpucloud_crusoe import api

        wanted = {
            "name": to_host_name(spec.tags, NAME_LENGTH),
            "type": offer.instance_type,
            "location": offer.region,
            "ssh_public_key": spec.public_key,
            "image": spec.image or self._image(offer),
        }
        reply = self._http.post(api.INSTANCES.format(project=self._project), json=wanted)
        operation = self._read(api.Begun.model_validate, reply, sent=True).operation
        made = self._read(api.Made.model_validate, operation.metadata, sent=True)
        over = self._settled(operation)
        if over.state == api.FAILED:
            raise self._failure(over, made.id)
        return spec.begun(offer, InstanceRef(made.id))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        found = self._found(ref)
        if found is None:
            raise NotFound(f"{self.name} knows no such thing", provider=self.name)
        return self._instance(found)

    def instances(self) -> Iterable[Instance]:
        """Everything in the project whose name has our token."""
        return ours(map(self._instance, self._instances({})))

    def terminate(self, ref: InstanceRef) -> None:
        """Delete one, with its system disk; a missing one is success."""
        from gpucloud_crusoe.api import INSTANCE

        found = self._found(ref)
        if found and state_of(found) not in {InstanceState.TERMINATING, InstanceState.TERMINATED}:
            with suppress(NotFound):
                self._http.delete(INSTANCE.format(project=self._project, id=found.id))

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; what is on the disks of its type is lost."""
        self._act(ref, "STOP", {InstanceState.STOPPED, InstanceState.STOPPING})

    def start(self, ref: InstanceRef) -> None:
        """Start one again, under another address."""
        self._act(ref, "START", {InstanceState.RUNNING, InstanceState.PENDING})

    def check_credentials(self, values: Mapping[str, str]) -> str:
        """Whose keys they are, by e-mail address."""
        return self._with(values)._whose()

    def _whose(self) -> str:
        from gpucloud_crusoe.api import USER, User

        return self._read(User.model_validate, self._http.get(USER)).identity.email

    def _act(self, ref: InstanceRef, action: str, done: set[InstanceState]) -> None:
        """Have something done to an instance that is not as it is to be, unless that is refused."""
        from gpucloud_crusoe import api

        if self.get(ref).state in done:
            return
        path = api.INSTANCE.format(project=self._project, id=quote(ref.id, safe=""))
        reply = self._http.patch(path, json={"action": action})
        over = self._settled(self._read(api.Begun.model_validate, reply, sent=True).operation)
        if over.state == api.FAILED:
            raise self._refused(over)

    def _settled(self, operation: api.Operation) -> api.Operation:
        """An operation as it is after some seconds, or sooner when it is over."""
        from gpucloud_crusoe import api

        path = api.OPERATION.format(project=self._project, id=quote(operation.operation_id, safe=""))
        for _ in range(LOOKS):
            if operation.state != api.UNDER_WAY:
                break
            self._http.sleep(LOOK_S)
            # What was asked for has been accepted, whatever becomes of a look at it.
            with suppress(ProviderError):
                operation = self._read(api.Operation.model_validate, self._http.get(path))
        return operation

    def _failure(self, operation: api.Operation, id: str) -> ProviderError:
        """Why a machine was not made, after what there may be of it is deleted."""
        error = self._refused(operation)
        try:
            self.terminate(InstanceRef(id))
        except ProviderError:
            error.outcome_unknown = True
        return error

    def _refused(self, operation: api.Operation) -> ProviderError:
        from gpucloud_crusoe.api import Result

        result = Result()
        with suppress(ValueError):
            result = Result.model_validate(operation.result)
        told = {"code": result.code, "message": result.message or result.code}
        error = self._refusal(REFUSED, told) or Rejected(
            f"{self.name}: the operation failed", provider=self.name
        )
        error.vendor_code, error.vendor_text = result.code, result.message
        error.why = result.message or result.code or error.why
        return error

    def _found(self, ref: InstanceRef) -> api.Instance | None:
        """An instance by its id, in a listing: to ask for a missing one by itself may be forbidden."""
        return next((told for told in self._instances({"ids": ref.id}) if told.id == ref.id), None)

    def _instances(self, wanted: Mapping[str, str]) -> Iterator[api.Instance]:
        from gpucloud_crusoe.api import INSTANCES, Instance

        for row in self._rows(INSTANCES.format(project=self._project), wanted):
            yield self._read(Instance.model_validate, row)

    def _rows(self, path: str, wanted: Mapping[str, str] | None = None) -> Iterator[Any]:
        """All pages of a listing."""
        from gpucloud_crusoe import api

        def page(token: str | None) -> tuple[list[Any], str | None]:
            query = {**(wanted or {}), **({"next_token": token} if token else {})}
            told = self._read(api.Rows.model_validate, self._http.get(path, params=query))
            return told.items, told.next_page_token

        return every_row(self.name, path, page)

    def _quotas(self) -> dict[str, int]:
        """What is left of each quota that is told."""
        from gpucloud_crusoe.api import QUOTAS, Quota, Quotas

        told = self._read(Quotas.model_validate, self._http.get(QUOTAS.format(project=self._project)))
        quotas = Rows(self.name).read(Quota.model_validate, told.quotas or ())
        return {quota.type: quota.available for quota in quotas if quota.available is not None}

    def _image(self, offer: Offer) -> str:
        """The newest Ubuntu with the drivers for an offer's GPU. Raises ``Rejected`` when there is none."""
        from gpucloud_crusoe.api import IMAGES, Image

        newest = newest_for(offer, Rows(self.name).read(Image.model_validate, self._rows(IMAGES)))
        if newest is None:
            raise Rejected(
                f"{self.name}: there is no Ubuntu with {drivers_for(offer)} in {offer.region}",
                provider=self.name,
                hint="name an image with --image",
            )
        return newest

    def _instance(self, told: api.Instance) -> Instance:
        tags = Tagged.read(from_host_name(told.name))
        return tags.instance(
            self.name,
            InstanceRef(told.id),
            state_of(told),
            ssh=ssh_of(told),
            instance_type=told.type,
            market=MARKETS.get(told.billing_type or ""),
        )
