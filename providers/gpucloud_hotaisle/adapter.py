"""Hot Aisle in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gpucloud.account_keys import AccountKey, AccountKeys
from gpucloud.calls import KeptBack
from gpucloud.errors import NotFound, ProviderError, Unsupported
from gpucloud.http import HttpClient
from gpucloud.labels import from_text, key_part, to_text
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
from gpucloud.replies import Rows
from gpucloud.rest import RestProvider
from gpucloud_hotaisle.claims import Claim, Claims, matched
from gpucloud_hotaisle.offers import name_of, to_offer
from gpucloud_hotaisle.refusals import CREATE_REFUSALS

if TYPE_CHECKING:
    from gpucloud_hotaisle import api

API_KEY: Final = Credential(
    "api_key",
    ("HOTAISLE_API_KEY",),
    (VendorFile("~/.hotaisle/config.json", FileFormat.JSON, "api_token"),),
    page="https://admin.hotaisle.app",
)
USER: Final = "hotaisle"
SSH_PORT: Final = 22
LAG_S: Final = 120
"""A create goes on when its request is cut off, and nothing says for how long."""

SLOW_S: Final = 180
"""A create and a delete answer only when they are done."""

STATES: Final = {
    "running": InstanceState.RUNNING,
    "idle": InstanceState.RUNNING,
    "blocked": InstanceState.RUNNING,
    "in shutdown": InstanceState.STOPPING,
    "shut off": InstanceState.STOPPED,
    "paused": InstanceState.STOPPED,
    "pmsuspended": InstanceState.STOPPED,
    "crashed": InstanceState.FAILED,
}
"""libvirt's words, of which the document names three."""


class Hotaisle(AccountKeys, RestProvider):
    """Hot Aisle's virtual machines."""

    name = "hotaisle"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.FULL,
        name_length=200,
        idempotent_launch=False,
        listing_lag_s=LAG_S,
        console="https://admin.hotaisle.app",
    )

    url = "https://admin.hotaisle.app/api"
    header = ("Authorization", "Token {}")

    @cached_property
    def _slow(self) -> HttpClient:
        return replace(self._http, read_s=SLOW_S, deadline_s=SLOW_S)

    @cached_property
    def _creates(self) -> HttpClient:
        """Some statuses mean something else of a create."""
        return replace(self._slow, classify=self._create_refusal)

    @cached_property
    def _claims(self) -> Claims:
        return Claims(self.settings.state_dir)

    @cached_property
    def _team(self) -> str:
        """Who is to pay, as a part of addresses: what the settings say, or the only team there is."""
        from gpucloud_hotaisle.api import TEAMS, Team

        chosen = self.settings.table.get("team")
        if chosen:
            return quote(str(chosen), safe="")
        teams = [self._read(Team.model_validate, row) for row in self._rows(TEAMS)]
        handles = [team.handle for team in teams if not team.invitation]
        return quote(self._only("team", handles, handles), safe="")

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each kind of machine, with how many are free; they have no place."""
        rows, now = Rows(self.name), utcnow()
        for row in self._available():
            with rows.row():
                rows.add([to_offer(self.name, row, now)])
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key is with the user afterwards."""
        from gpucloud_hotaisle import api

        if spec.image:
            raise Unsupported(
                f"{self.name}: there is no choice of images", provider=self.name, hint="leave --image away"
            )
        wanted = self._wanted(offer)
        self._key(spec)
        with self._claims.held():
            before = [machine.id for machine in self._settled()]
            shape = self._read(api.Specs.model_validate, wanted).shape
            claim = Claim(spec.token, to_text(spec.tags), shape, before, utcnow())
            self._claims.write(claim)
            try:
                reply = self._creates.post(api.MACHINES.format(team=self._team), json=wanted)
            except KeptBack:
                self._claims.forget(claim)
                raise
            except ProviderError as error:
                if error.outcome_unknown:
                    # It may have taken long to fail, and be listed from now on.
                    self._claims.write(replace(claim, sent_at=utcnow()))
                else:
                    self._claims.forget(claim)
                raise
            made = self._read(api.Machine.model_validate, reply, sent=True)
            claim = replace(claim, id=made.deployment_id)
            self._claims.write(claim)
            try:
                self._describe(made.id, claim)
            except ProviderError as error:
                # It bills, and only a listing that settles the claim makes it ours.
                error.outcome_unknown = True
                raise
        return spec.begun(offer, InstanceRef(made.id))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from gpucloud_hotaisle.api import Machine

        return self._instance(self._read(Machine.model_validate, self._http.get(self._address(ref.id))))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tags, which what a launch has left without them is given first."""
        machines = self._machines()
        if self._claims.open():
            with self._claims.held():
                machines = self._settled()
        for machine in machines:
            if from_text(machine.description or ""):
                yield self._instance(machine)

    def terminate(self, ref: InstanceRef) -> None:
        """Delete one, also before its minimum is over; a missing one is success."""
        with suppress(NotFound):
            self._slow.delete(self._address(ref.id), params={"force": "true"})

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the user, whom every machine lets in; a launch calls none."""
        from gpucloud_hotaisle.api import SSH_KEYS, SshKey

        for row in self._rows(SSH_KEYS):
            key = self._read(SshKey.model_validate, row)
            yield AccountKey("", key.fingerprint, key.comment or "", f"{key.type} {key.public_key}")

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one, whose name is its comment. Raises ``Rejected`` for one that is there already."""
        from gpucloud_hotaisle.api import SSH_KEYS

        self._http.post(SSH_KEYS, json={"authorized_key": f"{key_part(public_key)} {name}"})
        return ""

    def delete_account_key(self, id: str) -> None:
        """Delete one, by its fingerprint; machines that run keep it."""
        from gpucloud_hotaisle.api import SSH_KEY

        self._http.delete(SSH_KEY.format(fingerprint=quote(id.removeprefix("SHA256:"), safe="")))

    def check_credentials(self, values: Mapping[str, str]) -> str:
        """Whose key it is, by e-mail address."""
        return self._with(values)._whose()

    def _whose(self) -> str:
        from gpucloud_hotaisle.api import SELF, Self

        return self._read(Self.model_validate, self._http.get(SELF)).user.email

    def _create_refusal(self, status: int, body: Any) -> ProviderError | None:
        return self._among(CREATE_REFUSALS, status, body)

    def _wanted(self, offer: Offer) -> dict[str, Any]:
        """What the vendor says of such a machine. Raises ``NoCapacity`` when it is not sold any more so."""
        rows, now = Rows(self.name), utcnow()
        found = rows.read(lambda row: (to_offer(self.name, row, now), dict(row["Specs"])), self._available())
        self._still_sold(offer, (told for told, _ in found))
        return next(specs for told, specs in found if told.id == offer.id)

    def _settled(self) -> list[api.Machine]:
        """All machines, after what earlier launches have left without our tags has them; under the lock."""
        machines, claims = self._machines(), self._claims.open()
        made = matched(claims, {machine.id: machine.shape for machine in machines if not machine.description})
        for machine in machines:
            if claim := made.get(machine.id):
                self._describe(machine.id, claim)
                machine.description = claim.description
        late, told = utcnow() - timedelta(seconds=LAG_S), {machine.description for machine in machines}
        for claim in claims:
            # One that is older than a listing may lag, and is not shown, has made nothing.
            if claim.description in told or claim.sent_at < late:
                self._claims.forget(claim)
        return machines

    def _describe(self, id: str, claim: Claim) -> None:
        self._http.patch(self._address(id), json={"description": claim.description})
        self._claims.forget(claim)

    def _address(self, id: str) -> str:
        from gpucloud_hotaisle.api import MACHINE

        return MACHINE.format(team=self._team, id=quote(id, safe=""))

    def _machines(self) -> list[api.Machine]:
        from gpucloud_hotaisle.api import MACHINES, Machine

        rows = self._rows(MACHINES.format(team=self._team))
        return [self._read(Machine.model_validate, row) for row in rows]

    def _available(self) -> Iterator[Any]:
        from gpucloud_hotaisle.api import AVAILABLE

        return self._rows(AVAILABLE.format(team=self._team))

    def _rows(self, path: str) -> Iterator[Any]:
        """A listing, which comes in one piece."""
        from gpucloud_hotaisle.api import Many

        yield from self._read(Many.validate_python, self._http.get(path)) or ()

    def _instance(self, told: api.Machine) -> Instance:
        """With what it does, for which the vendor is asked by itself."""
        from gpucloud_hotaisle.api import STATE, State

        state, path = "", STATE.format(team=self._team, id=quote(told.id, safe=""))
        # What is listed is there, whether or not it has a state already, or any more.
        with suppress(NotFound):
            state = self._read(State.model_validate, self._http.get(path)).state
        return Tagged.read(from_text(told.description or "")).instance(
            self.name,
            InstanceRef(told.id),
            STATES.get(state.lower(), InstanceState.UNKNOWN),
            ssh=_ssh(told),
            instance_type=name_of(told),
            market=Market.ON_DEMAND,
        )


def _ssh(told: api.Machine) -> SshAddress | None:
    """Where it is reached from outside; an old one only at its own address."""
    access = told.ssh_access
    if access and access.ip_address:
        return SshAddress(access.ip_address, access.port or SSH_PORT, USER, inside=told.ip_address)
    return SshAddress(told.ip_address, SSH_PORT, USER) if told.ip_address else None
