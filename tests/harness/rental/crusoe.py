"""Crusoe as its document of v1 of 2026-07-20 describes it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlencode

from werkzeug import Request

from gpucloud.labels import from_host_name
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import sent_path
from tests.harness.rental.market import KEY, MACHINE, Boot, Market, Refused, Thing, answers, replies

SECRET: Final = "YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCAzMiBieXRlcy4"
PROJECT: Final = "09ae8411-0fbb-411c-898c-2b8f19622ae1"
MACHINES: Final = f"/projects/{PROJECT}/compute/vms/instances"
WHEN: Final = "2026-11-21T10:20:30Z"
PAGE: Final = 2
"""How many machines one page of a listing has."""


def refused(status: int, code: str, message: str) -> Refused:
    """A refusal as Crusoe writes it."""
    return Refused(status, {"code": code, "message": message})


class CrusoeCloud(Market):
    """One project at Crusoe."""

    name = "crusoe"
    base: ClassVar[str] = "https://api.cloud.crusoe.ai/v1"
    spec = "crusoe-v1.json"
    credentials: ClassVar[Mapping[str, str]] = {"access_key": KEY, "secret_key": SECRET}
    states = ("STATE_DEFINING", "STATE_RUNNING")

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, dict[str, Any]] = {}
        self.projects = [("research", PROJECT)]

    def authorised(self, request: Request) -> bool:
        """Whether a request is signed by the account's secret."""
        at = request.headers.get("X-Crusoe-Timestamp", "")
        query = urlencode(sorted(parse_qsl(request.query_string.decode(), keep_blank_values=True)))
        message = f"{sent_path(request.environ)}\n{query}\n{request.method}\n{at}\n"
        digest = hmac.digest(base64.urlsafe_b64decode(f"{SECRET}="), message.encode(), hashlib.sha256)
        signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return request.headers.get("Authorization") == f"Bearer 1.0:{KEY}:{signature}"

    def unauthorised(self) -> Refused:
        """As for a signature that is wrong."""
        return refused(401, "bad_credential", "bad credential")

    @answers("GET", "/users/identities")
    def identity(self, request: Request) -> Any:
        """Whose keys they are."""
        return {"identity": {"id": "u-1", "email": "me@example.com", "name": "Me", "role": "Admin"}}

    @answers("GET", "/organizations/projects")
    def own_projects(self, request: Request) -> Any:
        """The projects of the user."""
        parts = ("instances", "disks", "snapshots", "images", "vpc_networks")
        common = {"relation": "owner", "organization_id": "o-1"}
        resources = {part: {"count": 0} for part in parts}
        return {
            "items": [
                {"id": id, "name": name, "resources": resources, **common} for name, id in self.projects
            ]
        }

    @answers("GET", f"/projects/{PROJECT}/compute/vms/types", Verb.OFFERS)
    def types(self, request: Request) -> Any:
        """What can be rented."""
        return replies("crusoe/types.json")

    @answers("GET", "/capacities")
    def capacities(self, request: Request) -> Any:
        """What is free, and where."""
        return replies("crusoe/capacities.json")

    @answers("GET", f"/projects/{PROJECT}/quotas")
    def quotas(self, request: Request) -> Any:
        """What is left of the project's quotas."""
        return replies("crusoe/quotas.json")

    @answers("GET", "/compute/images")
    def images(self, request: Request) -> Any:
        """The images."""
        return replies("crusoe/images.json")

    @answers("POST", MACHINES, Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Begin to make one machine; that there is none is told in the operation."""
        asked = json.loads(request.data)
        if any(thing.asked["name"] == asked["name"] for thing in self._living()):
            raise refused(400, "bad_request", "an instance of that name exists already")
        if asked["type"] in self.full:
            told = {"code": "out_of_stock", "message": "The requested VM type is out of stock."}
            return self._operation(self.new_id(), "FAILED", told)
        tags = from_host_name(asked["name"])
        made = self.make(Boot(self.new_id(), (asked["ssh_public_key"],)), asked, tags)
        return self._operation(made.id, "IN_PROGRESS", {})

    @answers("GET", f"{MACHINES}/operations/<id>")
    def operation(self, request: Request, id: str) -> Any:
        """How far an operation has come: at the first look it is over."""
        told = self.operations.get(id)
        if told is None:
            raise refused(403, "unauthorized", "no such operation")
        if told["state"] == "IN_PROGRESS":
            told["state"] = told.pop("ends", "SUCCEEDED")
        return told

    @answers("GET", MACHINES, Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines, or the one that is asked for, a page at a time."""
        wanted, start = request.args.get("ids"), int(request.args.get("next_token", "0"))
        if wanted:
            return {"items": [self._row(self.looked_at(t)) for t in self._living() if t.id == wanted]}
        rows = [self._row(thing) for thing in self.listed()]
        more = {"next_page_token": str(start + PAGE)} if len(rows) > start + PAGE else {}
        return {"items": rows[start : start + PAGE], **more}

    @answers("DELETE", f"{MACHINES}/<id>", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End one; who names another's, or none, is not told which."""
        if not self.found(id, MACHINE):
            raise refused(403, "unauthorized", "no such instance")
        self.end(id)
        return self._operation(id, "IN_PROGRESS", {})

    @answers("PATCH", f"{MACHINES}/<id>", Verb.STOP)
    def act(self, request: Request, id: str) -> Any:
        """Stop or start one."""
        thing, action = self.found(id, MACHINE), json.loads(request.data)["action"]
        if thing is None:
            raise refused(403, "unauthorized", "no such instance")
        if (action == "START") == (thing.state != "STATE_SHUTOFF"):
            raise refused(400, "bad_request", f"cannot {action} an instance that is {thing.state}")
        if action == "START" and thing.asked["type"] in self.full:
            return self._operation(id, "FAILED", {"code": "out_of_stock", "message": "out of stock"})
        thing.state = "STATE_SHUTOFF" if action == "STOP" else self.states[0]
        return self._operation(id, "IN_PROGRESS", {})

    def _living(self) -> list[Thing]:
        return [thing for thing in self.instances() if thing.living]

    def _operation(self, about: str, state: str, result: Any) -> Any:
        told = {
            "operation_id": f"op-{len(self.operations)}",
            "state": state,
            "metadata": {"id": about, "type": "VM"},
            "result": result,
            "started_at": WHEN,
            "completed_at": WHEN,
        }
        self.operations[told["operation_id"]] = told
        return {"operation": dict(told)}

    def _row(self, thing: Thing) -> dict[str, Any]:
        reachable = thing.address if self.runs(thing) else None
        card = {
            "id": f"nic-{thing.id}",
            "name": "network-interface-1",
            "network": "net-1",
            "subnet": "subnet-1",
            "interface_type": "ethernet",
            "mac_address": "00:00:5e:00:53:af",
            "external_dns_name": f"{thing.asked['name']}.example",
            "ips": [
                {
                    "private_ipv4": {"address": "10.1.2.3"},
                    "public_ipv4": {
                        "address": reachable.host if reachable else "",
                        "id": f"ip-{thing.id}",
                        "type": "dynamic",
                    },
                }
            ],
        }
        return {
            "id": thing.id,
            "project_id": PROJECT,
            "name": thing.asked["name"],
            "type": thing.asked["type"],
            "location": thing.asked["location"],
            "state": thing.state,
            "billing_type": "On-demand",
            "created_at": thing.created_at.isoformat(),
            "updated_at": thing.created_at.isoformat(),
            "disks": [],
            "network_interfaces": [card],
            "host_channel_adapters": [],
            "maintenance_policy": "unspecified",
            **thing.more,
        }
