"""Shadeform as its document of 2026-03-05 describes it, and spot as the document of its tool does."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final

from werkzeug import Request

from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import KEY, MACHINE, Boot, Market, Refused, Thing, answers, replies

TYPES: Final = "shadeform/types.json"
FIRST_KEY: Final = "ssh-rsa AAAAshadeform managed"
NEVER: Final = "0001-01-01T00:00:00Z"
"""How Shadeform writes a moment that has not come; its document has no place for none."""


def refused(status: int, code: str, message: str) -> Refused:
    """A refusal as clients have met them."""
    return Refused(status, {"error_code": code, "error": message})


class ShadeformCloud(Market):
    """One account at Shadeform."""

    name = "shadeform"
    base: ClassVar[str] = "https://api.shadeform.ai/v1"
    spec = "shadeform.yaml"
    # A configuration is all of two schemas, and each names fields that the other does not.
    strict = False
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            r"(GET|POST) /v1/.*",
            "Unknown response http status: 4",
            "the document has no refusals; the API has (v1/providers/shadeform/instance.go of"
            " github.com/brevdev/cloud, read 2026-11-21)",
        ),
    )
    states = ("creating", "pending_provider", "pending", "active")

    def __init__(self) -> None:
        super().__init__()
        self.put("ssh-key", {}, bills=False, name="Shadeform Managed", public_key=FIRST_KEY)

    def new_id(self) -> str:
        """They are UUIDs."""
        return str(uuid.uuid4())

    def authorised(self, request: Request) -> bool:
        """The key has a header of its own, and the list of types is for everybody."""
        return request.headers.get("X-API-KEY") == KEY or request.path == "/v1/instances/types"

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "UNAUTHORIZED", "Unauthorized")

    def found(self, id: str, kind: str = MACHINE) -> Thing | None:
        """What has expired is there no more."""
        self._end_expired()
        return super().found(id, kind)

    def listed(self) -> list[Thing]:
        """The same."""
        self._end_expired()
        return super().listed()

    @answers("GET", "/v1/instances/types", Verb.OFFERS)
    def types(self, request: Request) -> Any:
        """All types, or those of a cloud and a name."""
        return {"instance_types": [row for row in self._types() if _asked_for(request, row)]}

    @answers("GET", "/v1/sshkeys")
    def keys(self, request: Request) -> Any:
        """The keys of the account, of which Shadeform has made the first."""
        return {"ssh_keys": [{"id": key.id, "is_default": False, **key.more} for key in self.beside()]}

    @answers("POST", "/v1/sshkeys/add")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account; their names are unique."""
        asked = json.loads(request.data)
        if asked["name"] in {key.more["name"] for key in self.beside()}:
            raise refused(400, "BAD_REQUEST", "name must be unique")
        return {"id": self.put("ssh-key", {}, bills=False, **asked).id}

    @answers("POST", "/v1/sshkeys/<id>/delete")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key that nothing uses."""
        if not self.found(id, "ssh-key"):
            raise refused(404, "NOT_FOUND", "ssh key not found")
        if id in {machine.asked["ssh_key_id"] for machine in self.instances() if machine.living}:
            raise refused(409, "CONFLICT", "ssh key is in use")
        self.end(id)

    @answers("POST", "/v1/instances/create", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one machine."""
        asked = json.loads(request.data)
        wanted = asked["cloud"], asked["shade_instance_type"]
        kind = next((t for t in self._types() if (t["cloud"], t["shade_instance_type"]) == wanted), None)
        if kind is None:
            raise refused(400, "BAD_REQUEST", "instance type not found")
        place = asked["region"], asked.get("rental_type", "on_demand")
        left = {(one["region"], one["rental_type"]) for one in kind["availability"] if one["available"]}
        if asked["shade_instance_type"] in self.full or place not in left:
            raise refused(409, "OUT_OF_STOCK", "The requested instance is out of stock.")
        if asked.get("os") not in {None, *kind["configuration"]["os_options"]}:
            raise refused(400, "BAD_REQUEST", "invalid os")
        key = self.found(asked["ssh_key_id"], "ssh-key")
        if key is None:
            raise refused(400, "BAD_REQUEST", "ssh key not found")
        tags = dict(word.split(":", 1) for word in asked.get("tags", []))
        boot = Boot(self.new_id(), (key.more["public_key"],))
        made = self.make(boot, asked, tags, kind=kind, auto_delete=asked.get("auto_delete", {}))
        return {"id": made.id}

    @answers("GET", "/v1/instances", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines."""
        return {"instances": [self._row(thing) for thing in self.listed()]}

    @answers("GET", "/v1/instances/<id>/info", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine, and when it ends."""
        thing = self.looked_at(self._machine(id))
        ending = dict(thing.more["auto_delete"])
        if "shown" in thing.more:
            ending["date_threshold"] = thing.more["shown"]
        return {**self._row(thing), "auto_delete": ending}

    @answers("POST", "/v1/instances/<id>/update", Verb.EXPIRE)
    def update(self, request: Request, id: str) -> Any:
        """Change when it ends."""
        self._machine(id).more |= json.loads(request.data)

    @answers("POST", "/v1/instances/<id>/delete", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End a machine."""
        self.end(self._machine(id).id)

    def _types(self) -> list[dict[str, Any]]:
        return list(replies(TYPES)["instance_types"])

    def _machine(self, id: str) -> Thing:
        thing = self.found(id)
        if thing is None:
            raise refused(404, "NOT_FOUND", "instance not found")
        return thing

    def _end_expired(self) -> None:
        for thing in self.instances():
            until = thing.more["auto_delete"].get("date_threshold")
            if thing.living and until and datetime.fromisoformat(until) <= self.now():
                self.end(thing.id)

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, kind = thing.asked, thing.more["kind"]
        reachable = thing.address if self.runs(thing) else None
        known = dict(kind["configuration"])
        known.pop("os_options")
        return {
            "id": thing.id,
            "cloud": kind["cloud"],
            "region": asked["region"],
            "shade_instance_type": kind["shade_instance_type"],
            "cloud_instance_type": kind["cloud_instance_type"],
            "cloud_assigned_id": "13b057d7-e266-4869-985f-760fe75a78b3" if reachable else "",
            "shade_cloud": asked["shade_cloud"],
            "name": asked["name"],
            "configuration": {**known, "os": asked.get("os", "ubuntu20.04")},
            "ip": reachable.host if reachable else "",
            "ssh_user": "shadeform",
            "ssh_port": reachable.port if reachable else 22,
            "status": thing.state,
            "status_details": "",
            "cost_estimate": "0",
            "hourly_price": kind["hourly_price"],
            "rental_terms": _terms(asked, kind),
            "tags": asked.get("tags", []),
            "created_at": thing.created_at.isoformat(),
            "deleted_at": NEVER,
        }


def _asked_for(request: Request, row: Mapping[str, Any]) -> bool:
    return all(row[name] == value for name, value in request.args.items())


def _terms(asked: Mapping[str, Any], kind: Mapping[str, Any]) -> dict[str, Any]:
    """How it is rented, and for how many dollars an hour."""
    rented = asked.get("rental_type", "on_demand")
    spot = (place["hourly_price"] for place in kind["availability"] if place["rental_type"] == "spot")
    price = next(spot) if rented == "spot" else f"{kind['hourly_price'] / 100:.2f}"
    return {"rental_type": rented, "hourly_price": price, "ending_at": None}
