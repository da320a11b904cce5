"""CloudRift as its document of 2026-08-13 describes it, and with what version 0.62 has changed since."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_words
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import KEY, MACHINE, Boot, Market, Refused, Thing, answers, replies

VERSION: Final = "2026-09-08"
CHANGES: Final = (
    "rift-server 0.62.1 as its users describe it (2026-10-06), after docs.cloudrift.ai/changelog/2026"
)


class CloudRift(Market):
    """One account at CloudRift."""

    name = "cloudrift"
    base: ClassVar[str] = "https://api.cloudrift.ai/"
    spec = "cloudrift.json"
    deviations = (
        Deviation("POST /api/v1/instances/(rent|list|terminate)", "tags", CHANGES),
        Deviation("POST /api/v1/instances/(rent|terminate)", "status: 201", CHANGES),
        Deviation("POST /api/v1/instance-types/list", "nvidia_kernel_module_support", CHANGES),
    )
    states = ("Initializing", "Active")
    gpu = "RTX4090:2"
    gpus = "rtx-4090-2"

    def authorised(self, request: Request) -> bool:
        """By a header of its own."""
        return request.headers.get("X-API-Key") == KEY

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return Refused(401, "Not authorized")

    @answers("POST", "/api/v1/instance-types/list", Verb.OFFERS)
    def types(self, request: Request) -> Any:
        """All types, or what of them is in some data centres."""
        self._asked(request)
        return self._told(replies("cloudrift/instance-types.json"))

    @answers("POST", "/api/v1/auth/me")
    def me(self, request: Request) -> Any:
        """Whose key it is."""
        self._asked(request)
        return self._told(
            {"id": "u-1", "email": "me@example.com", "provider": "GitHub", "totp_enabled": True}
        )

    @answers("POST", "/api/v1/recipes/list")
    def recipes(self, request: Request) -> Any:
        """The images."""
        self._asked(request)
        return self._told(replies("cloudrift/recipes.json"))

    @answers("POST", "/api/v1/instances/rent", Verb.CREATE)
    def rent(self, request: Request) -> Any:
        """Make one machine."""
        asked = self._asked(request)
        chosen = asked["selector"]["ByInstanceTypeAndLocation"]
        variant = self._variant(chosen["instance_type"])
        free = sum(variant["available_nodes_per_dc"].get(place, 0) for place in chosen["datacenters"])
        if not free or chosen["instance_type"] in self.full:
            raise Refused(503, "Service Unavailable: NodeAllocationModeMixed")
        machine = asked["config"]["VirtualMachine"]
        keys = tuple(machine["ssh_key"]["PublicKeys"])
        made = self.make(Boot(self.new_id(), keys), asked, from_words(asked["tags"]))
        return 201, self._told({"instance_ids": [made.id]})

    @answers("POST", "/api/v1/instances/list", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """The machines in the states that are asked for."""
        chosen = self._asked(request)["selector"]["ByStatus"]
        assert chosen["scope"] == "All"
        rows = [self._row(thing) for thing in self.listed()]
        return self._told({"instances": [row for row in rows if row["status"] in chosen["statuses"]]})

    @answers("POST", "/api/v1/instances/terminate", Verb.TERMINATE)
    def terminate(self, request: Request) -> Any:
        """End those of the machines that are there."""
        ids = self._asked(request)["selector"]["ById"]
        things = [thing for id in ids if (thing := self.found(id, MACHINE))]
        rows = [{**self._row(thing), "status": "Deactivating"} for thing in things]
        for thing in things:
            self.end(thing.id)
        return 201, self._told({"terminated": rows})

    def _asked(self, request: Request) -> Any:
        """What is asked, which has to be in the words of today and to name them first."""
        body = json.loads(request.data)
        if list(body) != ["version", "data"] or body["version"] < VERSION:
            raise Refused(400, "Unsupported protocol version")
        return body["data"]

    def _told(self, data: Any) -> Any:
        return {"version": VERSION, "data": data}

    def _variant(self, name: str) -> dict[str, Any]:
        types = replies("cloudrift/instance-types.json")["instance_types"]
        found = [variant for kind in types for variant in kind["variants"] if variant["name"] == name]
        if not found:
            raise Refused(400, "Bad request: unknown instance type")
        return dict(found[0])

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, reachable = thing.asked, thing.address if self.runs(thing) else None
        kind = asked["selector"]["ByInstanceTypeAndLocation"]["instance_type"]
        machine = {
            "vmid": 1,
            "name": thing.id,
            "ready": reachable is not None,
            "state": "Running",
            "login_info": {"Username": {"username": "riftuser"}},
        }
        return {
            "id": thing.id,
            "instance_name": asked["name"],
            "tags": asked["tags"],
            "status": thing.state,
            "node_id": "node-1",
            "node_mode": "VirtualMachine",
            "node_status": "Ready",
            "created_at": thing.created_at.isoformat(),
            "ssh_key_auth": True,
            "containers": [],
            "virtual_machines": [machine] if self.runs(thing) else [],
            "resource_info": {
                "provider_name": "Arcane Web Services",
                "instance_type": kind,
                "cost_per_hour": self._variant(kind)["cost_per_hour"],
            },
            **({"host_address": reachable.host} if reachable else {}),
            **thing.more,
        }
