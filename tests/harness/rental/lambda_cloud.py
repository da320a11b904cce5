"""Lambda as its document of 2026-08-22 describes it."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from tests.harness.acme.faults import Verb
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

TYPES: Final = "lambda/instance-types.json"
BLOCKED: Final = {"available": True}
ACTIONS: Final = ("migrate", "rebuild", "restart", "cold_reboot", "terminate")


def refused(status: int, code: str, message: str) -> Refused:
    """A refusal as Lambda writes it."""
    return Refused(status, {"error": {"code": code, "message": message, "suggestion": "Try another."}})


class LambdaCloud(Market):
    """One account at Lambda."""

    name = "lambda"
    base: ClassVar[str] = "https://cloud.lambda.ai/"
    spec = "lambda.json"
    states = ("booting", "active")

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "global/invalid-api-key", "API key was invalid, expired, or deleted.")

    @answers("GET", "/api/v1/instance-types", Verb.OFFERS)
    def types(self, request: Request) -> Any:
        """All types, and where some of them are left."""
        return replies(TYPES)

    @answers("GET", "/api/v1/ssh-keys")
    def keys(self, request: Request) -> Any:
        """The keys of the account."""
        return {"data": [self._key(thing) for thing in self.beside()]}

    @answers("POST", "/api/v1/ssh-keys")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account."""
        asked = json.loads(request.data)
        return {"data": self._key(self.put("ssh-key", {}, bills=False, **asked))}

    @answers("DELETE", "/api/v1/ssh-keys/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key."""
        if not self.found(id, "ssh-key"):
            raise refused(404, "global/not-found", "The SSH key was not found.")
        self.end(id)
        return {"data": {}}

    @answers("POST", "/api/v1/instance-operations/launch", Verb.CREATE)
    def launch(self, request: Request) -> Any:
        """Make one machine."""
        asked = json.loads(request.data)
        kind, region = asked["instance_type_name"], asked["region_name"]
        known = replies(TYPES)["data"].get(kind)
        if known is None:
            raise refused(404, "global/object-does-not-exist", "Instance type was not found.")
        left = {place["name"] for place in known["regions_with_capacity_available"]}
        if kind in self.full or region not in left:
            code = "instance-operations/launch/insufficient-capacity"
            raise refused(400, code, "Not enough capacity to fulfill launch request.")
        (name,) = asked["ssh_key_names"]
        keys = tuple(key.more["public_key"] for key in self.beside() if key.more["name"] == name)
        if not keys:
            raise refused(400, "global/object-does-not-exist", f"SSH key {name} was not found.")
        tags = {tag["key"]: tag["value"] for tag in asked.get("tags", [])}
        made = self.make(Boot(self.new_id(), keys, asked.get("user_data", "")), asked, tags)
        return {"data": {"instance_ids": [made.id]}}

    @answers("GET", "/api/v1/instances", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines."""
        return {"data": [self._row(thing) for thing in self.listed()]}

    @answers("GET", "/api/v1/instances/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return {"data": self._row(self.looked_at(self._machine(id)))}

    @answers("POST", "/api/v1/instance-operations/terminate", Verb.TERMINATE)
    def terminate(self, request: Request) -> Any:
        """End machines."""
        things = [self._machine(id) for id in json.loads(request.data)["instance_ids"]]
        rows = [{**self._row(thing), "status": "terminating"} for thing in things]
        for thing in things:
            self.end(thing.id)
        return {"data": {"terminated_instances": rows}}

    def _machine(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise refused(404, "global/object-does-not-exist", "Specified instance does not exist.")
        return thing

    def _key(self, thing: Thing) -> dict[str, Any]:
        return {"id": thing.id, **thing.more}

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked = thing.asked
        known = replies(TYPES)["data"][asked["instance_type_name"]]
        reachable = thing.address if self.runs(thing) else None
        return {
            "id": thing.id,
            "name": asked["name"],
            "status": thing.state,
            **({"ip": reachable.host, "private_ip": "10.0.2.100"} if reachable else {}),
            "ssh_key_names": asked["ssh_key_names"],
            "file_system_names": [],
            "region": {"name": asked["region_name"], "description": "somewhere"},
            "instance_type": known["instance_type"],
            "actions": dict.fromkeys(ACTIONS, BLOCKED),
            "tags": [{"key": key, "value": value} for key, value in thing.tags.items()],
        }
