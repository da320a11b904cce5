"""Vast.ai as its document of 2026-08-07 describes it, and as its customers have met it since."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

OFFERS: Final = "vast/offers.json"
CAP: Final = 64
PAGE: Final = 25
LISTING: Final = "/api/v1/instances"

TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda told, wanted: bool(told == wanted),
    "gt": lambda told, wanted: told is not None and bool(told > wanted),
    "gte": lambda told, wanted: told is not None and bool(told >= wanted),
    "in": lambda told, wanted: told in wanted,
    "notin": lambda told, wanted: told not in wanted,
}
QUEUED: Final = {
    "success": False,
    "msg": "Required resources are currently unavailable, state change queued.",
}


def refused(status: int, code: str, message: str) -> Refused:
    """A refusal as Vast.ai writes it."""
    return Refused(status, {"success": False, "error": code, "msg": message})


class VastAi(Market):
    """One account at Vast.ai. As many machines as are asked for stand behind each offer."""

    name = "vast"
    base: ClassVar[str] = "https://console.vast.ai/"
    spec = "vastai.yaml"
    # The conditions of a search are objects of which the document names no fields, or one operator of eight.
    strict = False
    states = ("", "loading", "running")

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[dict[str, Any]] = replies(OFFERS)["offers"]
        self.direct = True
        """Whether machines have ports open, or are reached by the relay alone."""
        self.occupied = False
        """Whether the GPUs of what was stopped are somebody else's by now."""
        self.told: dict[str, Any] = {}
        """What every instance says besides, or instead."""

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "auth_error", "Invalid user key")

    def authorised(self, request: Request) -> bool:
        """The account's key, or that of an instance for itself."""
        own = re.fullmatch(r"/api/v0/instances/(\d+)/", request.path)
        thing = self.found(own[1]) if own else None
        key = request.headers.get("Authorization")
        return super().authorised(request) or (thing is not None and key == f"Bearer {own_key(thing.id)}")

    def verb(self, environ: WSGIEnvironment, content: bytes) -> Verb | None:
        """The same address starts and stops, and lists all or one."""
        found = super().verb(environ, content)
        if found is Verb.STOP:
            return Verb.START if b"running" in content else Verb.STOP
        return Verb.GET if found is Verb.LIST and "select_filters" in environ["QUERY_STRING"] else found

    def new_id(self) -> str:
        """A number."""
        return str(30_000_000 + next(self._numbers))

    @answers("POST", "/api/v0/bundles", Verb.OFFERS)
    def search(self, request: Request) -> Any:
        """The first of what meets every condition."""
        asked = json.loads(request.data)
        bid = asked["type"] == "bid"
        found = [_as_bid(offer) for offer in self.offers if offer["min_bid"]] if bid else self.offers
        conditions = {field: test for field, test in asked.items() if isinstance(test, dict)}
        found = [
            offer
            for offer in found
            if all(
                TESTS[name](_value(offer, field), wanted)
                for field, test in conditions.items()
                for name, wanted in test.items()
            )
        ]
        for field, direction in reversed(asked["order"]):
            found.sort(key=lambda offer: offer[field], reverse=direction == "desc")
        return {"offers": found[: min(asked["limit"], CAP)]}

    @answers("PUT", "/api/v0/asks/<id>", Verb.CREATE)
    def accept(self, request: Request, id: str) -> Any:
        """Make a contract."""
        asked = json.loads(request.data)
        offer = next((offer for offer in self.offers if str(offer["id"]) == id), None)
        if offer is None:
            raise refused(
                404, "invalid_args", f"error 404/3603: no_such_ask Instance type by id {id} is not available."
            )
        if offer["gpu_name"] in self.full:
            text = f"error 410/3907: no_such_ask Instance type {id} is no longer available."
            raise refused(410, "no_such_ask", text)
        if "price" in asked and asked["price"] < (offer["min_bid"] or 0):
            raise refused(400, "invalid_price", "error 400: the bid is below the least one.")
        keys = re.findall(r"^key=(.*)$", asked["onstart"], re.MULTILINE)
        boot = Boot(self.new_id(), tuple(shlex.split(key)[0] for key in keys), asked["onstart"])
        made = self.make(boot, asked, from_text(asked["label"]), offer=offer, meant="running")
        return {"success": True, "new_contract": int(made.id)}

    @answers("GET", LISTING, Verb.LIST)
    def listing(self, request: Request) -> Any:
        """A page of the instances, or the one whose id is asked for."""
        wanted = json.loads(request.args.get("select_filters", "{}"))
        if wanted:
            thing = self.found(str(wanted["id"]["eq"]))
            return self._page([self.looked_at(thing)] if thing else [], None)
        after = request.args.get("after_token", "0")
        if not after.isdecimal():
            raise Refused(400, {"error": "invalid_token", "msg": "the token is not valid"})
        # Only the first page lets time pass, so that all are of the same moment.
        things = self.listed() if after == "0" else [t for t in self.instances() if t.living]
        rest = sorted((t for t in things if int(t.id) > int(after)), key=lambda thing: int(thing.id))
        return self._page(rest[:PAGE], rest[PAGE - 1].id if len(rest) > PAGE else None)

    @answers("PUT", "/api/v0/instances/<id>", Verb.STOP)
    def manage(self, request: Request, id: str) -> Any:
        """Stop or start one."""
        thing, state = self._instance(id), json.loads(request.data)["state"]
        thing.more["meant"] = state
        if state == "stopped":
            thing.state = "exited"
        elif thing.state == "exited" and self.occupied:
            return QUEUED
        elif thing.state == "exited":
            thing.state = "loading"
        return {"success": True}

    @answers("DELETE", "/api/v0/instances/<id>", Verb.TERMINATE)
    def destroy(self, request: Request, id: str) -> Any:
        """End one."""
        self.end(self._instance(id).id)
        return {"success": True}

    def _instance(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise refused(404, "no_such_instance", "Instance with that ID does not exist.")
        return thing

    def _page(self, things: list[Thing], after: str | None) -> Any:
        rows = [{**self._row(thing), **self.told} for thing in things]
        return {"success": True, "instances_found": len(rows), "instances": rows, "next_token": after}

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, offer = thing.asked, thing.more["offer"]
        stopped = thing.state == "exited"
        row = {
            "id": int(thing.id),
            "label": asked["label"],
            "actual_status": thing.state or None,
            "cur_state": "stopped" if stopped else "running",
            "next_state": thing.more["meant"],
            "intended_status": thing.more["meant"],
            "status_msg": None,
            "image_uuid": asked["image"],
            "is_bid": "price" in asked,
            "dph_base": asked.get("price", offer["dph_base"]),
            "gpu_name": offer["gpu_name"],
            "num_gpus": offer["num_gpus"],
            "ssh_host": "ssh5.vast.ai",
            "ssh_port": 22822,
        }
        if self.runs(thing) and self.direct and thing.address:
            port = {"HostIp": "0.0.0.0", "HostPort": str(thing.address.port)}
            row |= {"public_ipaddr": f"{thing.address.host}\n", "ports": {"22/tcp": [port]}}
        return row


def own_key(id: str) -> str:
    """The key that an instance has for itself."""
    return f"own-key-of-{id}"


def _as_bid(offer: Mapping[str, Any]) -> dict[str, Any]:
    """An offer as the search for bids tells it, whose prices are those of the least bid."""
    disk = offer["dph_total"] - offer["dph_base"]
    return {**offer, "is_bid": True, "dph_base": offer["min_bid"], "dph_total": offer["min_bid"] + disk}


def _value(offer: Mapping[str, Any], field: str) -> Any:
    """What a condition is about."""
    if field == "geolocation":
        return offer[field].rpartition(",")[2].strip()
    if field == "verified":
        return offer["verification"] == "verified"
    return bool(offer[field]) if field == "external" else offer[field]
