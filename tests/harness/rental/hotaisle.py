"""Hot Aisle as its document of 2026-06-25 describes it, and with the ids that machines have had since."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import KEY, MACHINE, Boot, Market, Refused, Thing, answers, replies

AVAILABLE: Final = "hotaisle/available.json"
TEAM: Final = "acme"
KEYS: Final = "ssh-key"


class HotAisleCloud(Market):
    """One user at Hot Aisle, with one team, and an invitation to another."""

    name = "hotaisle"
    base: ClassVar[str] = "https://admin.hotaisle.app/api/"
    spec = "hotaisle.json"
    # What the document puts together with allOf would forbid each part the fields of the other.
    strict = False
    states = ("no state", "running")
    gpu = "MI300X:8"
    gpus = "mi300x-8"

    def authorised(self, request: Request) -> bool:
        """By a word of its own before the key."""
        return request.headers.get("Authorization") == f"Token {KEY}"

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return Refused(401, "Unauthorized")

    @answers("GET", "/user/")
    def user(self, request: Request) -> Any:
        """Whose key it is."""
        told = {"email": "me@example.com", "name": "Me", "created": "2025-04-10T14:30:00Z"}
        return {"user": told, "teams": []}

    @answers("GET", "/teams/")
    def teams(self, request: Request) -> Any:
        """The team, and one that the user has not joined."""
        roles = {"roles": ["owner"], "effective_roles": ["owner", "operator"]}
        return [
            {"handle": TEAM, "name": "Acme", **roles},
            {"handle": "others", "name": "Others", "invitation": True, "roles": [], "effective_roles": []},
        ]

    @answers("GET", f"/teams/{TEAM}/virtual_machines/available/", Verb.OFFERS)
    def available(self, request: Request) -> Any:
        """All kinds of machines."""
        return replies(AVAILABLE)

    @answers("GET", "/user/ssh_keys/")
    def keys(self, request: Request) -> Any:
        """The keys of the user."""
        return [thing.more for thing in self.beside()]

    @answers("POST", "/user/ssh_keys/")
    def add_key(self, request: Request) -> Any:
        """Take a key."""
        kind, key, comment = json.loads(request.data)["authorized_key"].split()
        if any(thing.more["public_key"] == key for thing in self.beside()):
            raise Refused(409, "Conflict: key already registered")
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
        told = {"type": kind, "public_key": key, "comment": comment, "fingerprint": f"SHA256:{digest}"}
        return self.put(KEYS, {}, bills=False, **told).more

    @answers("DELETE", "/user/ssh_keys/<fingerprint>/")
    def delete_key(self, request: Request, fingerprint: str) -> Any:
        """Forget a key."""
        for thing in self.beside():
            if thing.more["fingerprint"] == f"SHA256:{fingerprint}":
                self.end(thing.id)
                return 204, None
        raise Refused(404, "Not Found: SSH key not found")

    @answers("POST", f"/teams/{TEAM}/virtual_machines/", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Hand one out, which lets every key of the user in."""
        asked = json.loads(request.data)
        told = [row for row in replies(AVAILABLE) if row["Specs"] == asked and row["Quantity"]]
        if not told:
            raise Refused(404, "Not Found: no available virtual machine matching requested specifications")
        keys = [f"{thing.more['type']} {thing.more['public_key']}" for thing in self.beside()]
        return self._row(self.make(Boot(self.new_id(), tuple(keys)), asked, {}))

    @answers("GET", f"/teams/{TEAM}/virtual_machines/", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines."""
        return [self._row(thing) for thing in self.listed()]

    @answers("GET", f"/teams/{TEAM}/virtual_machines/<id>/", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return self._row(self.looked_at(self._machine(id)))

    @answers("GET", f"/teams/{TEAM}/virtual_machines/<id>/state/")
    def state(self, request: Request, id: str) -> Any:
        """What one does."""
        return {"host": "host-01", "state": self.looked_at(self._machine(id)).state}

    @answers("PATCH", f"/teams/{TEAM}/virtual_machines/<id>/")
    def describe(self, request: Request, id: str) -> Any:
        """Take another description."""
        thing = self._machine(id)
        thing.more["description"] = json.loads(request.data)["description"]
        thing.tags = from_text(thing.more["description"])
        return 204, None

    @answers("DELETE", f"/teams/{TEAM}/virtual_machines/<id>/", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End one, which within its minimum has to be forced."""
        self._machine(id)
        if request.args.get("force") != "true":
            raise Refused(400, "Bad Request: minimum reservation time has not been met")
        self.end(id)
        return 204, None

    def _machine(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise Refused(404, "Not Found: virtual machine not found")
        return thing

    def _row(self, thing: Thing) -> dict[str, Any]:
        reachable = thing.address if self.runs(thing) else None
        return {
            "name": f"enc1-gpuvm{thing.id.rpartition('-')[2]}",
            "deployment_id": thing.id,
            "description": thing.more.get("description", ""),
            "ip_address": "10.0.2.100",
            **({"ssh_access": {"ip_address": reachable.host, "port": reachable.port}} if reachable else {}),
            **thing.asked,
        }
