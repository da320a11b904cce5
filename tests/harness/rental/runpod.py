"""RunPod as its document of 2026-08-20 describes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

TYPES: Final = "runpod/gpus.json"
PAGE: Final = 2
WEB: Final = {"private": 8888, "public": 60080, "type": "http", "ip": "100.65.0.101"}
SOLD_OUT: Final = "There are no instances currently available"
ALLOWED: Final = {
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
}


def refused(status: int, detail: str) -> Refused:
    """A refusal as RunPod writes it."""
    return Refused(status, {"title": "No", "status": status, "detail": detail})


def pages(pods: int, after: int) -> Any:
    """What is told of the pages of a listing."""
    more = pods > after + PAGE
    return {"nextCursor": str(after + PAGE) if more else None, "hasNextPage": more}


class RunpodCloud(Market):
    """One account at RunPod."""

    name = "runpod"
    base: ClassVar[str] = "https://api.runpod.io/"
    spec = "runpod-v2.json"
    # A pod is all of several schemas, none of which has the fields of the others. What a pod is made by is
    # closed by the document itself. Clients of autumn 2026, such as that of SkyPilot's pull request 10846,
    # read ``pagination`` beside the pods, which the document does not name.
    strict = False
    refusal_type = "application/problem+json"
    states = ("PROVISIONING", "STARTING", "RUNNING")

    def __init__(self) -> None:
        super().__init__()
        self.types: list[dict[str, Any]] = replies(TYPES)["gpus"]
        """All types, as they are told for one GPU in the secure cloud."""
        self.pages: Callable[[int, int], Any] = pages
        """What is told of the pages of a listing that has so many pods, on the one after so many."""
        self.direct = True
        """Whether it is told how SSH answers, beside the ports."""
        self.goes_on = True
        """Whether pods go on from state to state."""
        self.without_gpus = False
        """Whether pods that are started again find no GPUs."""

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "invalid bearer token")

    @answers("GET", "/v2/catalog/gpus", Verb.OFFERS)
    def catalog(self, request: Request) -> Any:
        """All types, and what is left of them in one cloud for one number."""
        asked = request.args
        if asked.get("include") != "AVAILABILITY" or asked.get("product") != "POD":
            raise refused(400, "count and cloud are valid only with include=AVAILABILITY")
        cloud, count = asked.get("cloud", "SECURE").lower(), int(asked.get("count", 1))
        return {"gpus": [self._left(row, cloud, count) for row in self.types]}

    @answers("POST", "/v2/pods", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one pod."""
        asked = json.loads(request.data)
        cloud, wanted = asked["cloud"].lower(), asked["gpu"]
        known = next((row for row in self.types if row["id"] == wanted["id"]), None)
        if known is None or not known[cloud]:
            raise refused(400, "This GPU and data center combination could not be placed")
        left = self._left(known, cloud, wanted["count"])
        places = {place["id"] for place in left.get("dataCenters", ()) if place["availability"] != "NONE"}
        if left["availability"] == "NONE" or not places >= set(asked.get("dataCenterIds", ())):
            raise refused(400, SOLD_OUT)
        keys = tuple(asked["env"]["PUBLIC_KEY"].splitlines())
        where = next(iter(asked.get("dataCenterIds", ())), None)
        tags = from_text(asked["env"]["GPUCLOUD"])
        cost = known["price"][cloud] * wanted["count"]
        return 201, self._row(self.make(Boot(self.new_id(), keys), asked, tags, where=where, cost=cost))

    @answers("GET", "/v2/pods", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """Pods, a page at a time."""
        after = int(request.args.get("cursor", 0))
        things = self.listed()
        told = self.pages(len(things), after)
        shown = things[after : after + PAGE] if told else things
        return {"pods": [self._row(one) for one in shown], **({"pagination": told} if told else {})}

    @answers("GET", "/v2/pods/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One pod."""
        thing = self._pod(id)
        return self._row(self.looked_at(thing) if self.goes_on else thing)

    @answers("DELETE", "/v2/pods/<id>", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End one pod."""
        self.end(self._pod(id).id)
        return 204, None

    @answers("POST", "/v2/pods/<id>/action", Verb.STOP)
    def act(self, request: Request, id: str) -> Any:
        """Stop one pod, or start it again where it was."""
        thing, action = self._pod(id), json.loads(request.data)["action"]
        if action not in ALLOWED[thing.state]:
            raise refused(409, f"{action} is not valid for a pod that is {thing.state}")
        if action == "start" and thing.asked["gpu"]["id"] in self.full:
            raise refused(400, "There are not enough free GPUs on the host machine to start this pod.")
        thing.state = {"stop": "EXITED", "start": "STARTING"}[action]
        thing.more["without_gpus"] = action == "start" and self.without_gpus
        return self._row(thing)

    def _left(self, row: dict[str, Any], cloud: str, count: int) -> dict[str, Any]:
        """What the fixture says of one GPU in the secure cloud, for so many in that one."""
        none = row["id"] in self.full or count > row["maxCount"][cloud]
        # Machines of partners stand in none of RunPod's data centres.
        told = {key: row[key] for key in row if key != "dataCenters" or not (none or cloud == "community")}
        return {**told, "availability": "NONE" if none else row["availability"]}

    def _pod(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise refused(404, "pod not found")
        return thing

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, reachable = thing.asked, thing.address if self.runs(thing) else None
        direct, runtime = None, None
        if reachable:
            host, port, user = reachable.host, reachable.port, reachable.user
            if self.direct:
                command = f"ssh {user}@{host} -p {port}"
                direct = {"host": host, "port": port, "username": user, "command": command}
            open_port = {"private": 22, "public": port, "type": "tcp", "ip": host}
            runtime = {"uptime": 60, "ports": [WEB, open_port]}
        gpus = {key: asked["gpu"][key] for key in ("id", "count")}
        return {
            **{key: asked[key] for key in ("name", "image", "disk", "env", "ports", "mounts", "cloud")},
            "id": thing.id,
            "args": "",
            "status": thing.state,
            "actions": list(ALLOWED.get(thing.state, ())),
            **({} if thing.more.get("without_gpus") else {"gpu": gpus}),
            "dataCenterId": thing.more["where"],
            "cudaVersion": None,
            "registry": None,
            "ssh": {"proxy": None, "direct": direct},
            "template": None,
            "cost": 0 if thing.state == "EXITED" else thing.more["cost"],
            "locked": False,
            "runtime": runtime,
            "createdAt": thing.created_at.isoformat().replace("+00:00", "Z"),
            "startedAt": None,
            "globalNetworking": {"enabled": False},
        }
