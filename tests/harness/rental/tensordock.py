"""TensorDock as its page of documentation tells; no document is good enough to judge it by."""

from __future__ import annotations

import json
from typing import Any

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import Boot, Market, Refused, Thing, answers, replies


class TensorDock(Market):
    """One organisation at TensorDock."""

    name = "tensordock"
    base = "https://dashboard.tensordock.com"
    states = ("Starting", "running")

    @answers("GET", "/api/v2/locations", Verb.OFFERS)
    def locations(self, request: Request) -> Any:
        """All places, and what they have."""
        return replies("tensordock/locations.json")

    @answers("POST", "/api/v2/instances", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one machine; that there is no room is told under a status of success."""
        asked = json.loads(request.data)["data"]["attributes"]
        (kind,) = asked["resources"]["gpus"]
        if kind in self.full:
            return {"error": "Not enough resources available at this location", "status": 400}
        assert asked["useDedicatedIp"] and asked["resources"]["storage_gb"] >= 100
        born = Boot(self.new_id(), (asked["ssh_key"],))
        made = self.make(born, asked, from_text(asked["name"]))
        told = {"type": "virtualmachine", "id": made.id, "name": asked["name"], "status": made.state}
        return 201, {"data": told}

    @answers("GET", "/api/v2/instances", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines."""
        rows = [self._row(thing) for thing in self.listed()]
        return {"data": {"type": "list", "id": "instances", "attributes": {"instances": rows}}}

    @answers("GET", "/api/v2/instances/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return {"data": self._row(self.looked_at(self._machine(id)))}

    @answers("DELETE", "/api/v2/instances/<id>", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End one machine."""
        self.end(self._machine(id).id)
        return {"data": {"type": "success", "message": "it is being deleted"}}

    @answers("POST", "/api/v2/instances/<id>/stop", Verb.STOP)
    def stop(self, request: Request, id: str) -> Any:
        """Let one stand still."""
        return self._set(id, "Stopped")

    @answers("POST", "/api/v2/instances/<id>/start", Verb.START)
    def start(self, request: Request, id: str) -> Any:
        """Let one run again."""
        thing = self._machine(id)
        return self._set(id, thing.state if self.runs(thing) else self.states[0])

    def _set(self, id: str, state: str) -> Any:
        thing = self._machine(id)
        thing.state = state
        return {"data": {"type": "virtualmachine", "id": id, "attributes": {"status": state}}}

    def _machine(self, id: str) -> Thing:
        thing = self.found(id)
        if thing is None:
            raise Refused(
                404, {"errors": [{"status": "404", "title": "Not Found", "detail": "no such instance"}]}
            )
        return thing

    def _row(self, thing: Thing) -> dict[str, Any]:
        reachable = thing.address if self.runs(thing) else None
        known = {
            "name": thing.asked["name"],
            "status": thing.state,
            "ipAddress": reachable.host if reachable else "",
            "portForwards": [],
            "resources": thing.asked["resources"],
            "rateHourly": 20.23,
        }
        return {"type": "virtualmachine", "id": thing.id, "attributes": known}
