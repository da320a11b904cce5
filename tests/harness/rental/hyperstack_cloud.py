"""Hyperstack as its document of 2026-06-17 describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from werkzeug import Request

from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import KEY, MACHINE, Boot, Market, Refused, Thing, answers, replies

FLAVORS: Final = "hyperstack/flavors.json"
CORE: Final = "/v1/core/"
NO_ID: Final = "the document itself: no property of a rule, and a machine that is to be made has no id yet"

IN_ALL_OF: Final = "the document itself: its fields are within an allOf, whose outside names none"


def refused(status: int, reason: str, message: str) -> Refused:
    """A refusal as Hyperstack writes it."""
    return Refused(status, {"status": False, "message": message, "error_reason": reason})


def done(**more: Any) -> dict[str, Any]:
    """What every success says."""
    return {"status": True, "message": "OK", **more}


class Hyperstack(Market):
    """One account at Hyperstack."""

    name = "hyperstack"
    base: ClassVar[str] = "https://infrahub-api.nexgencloud.com/v1"
    spec = "hyperstack.yaml"
    states = ("CREATING", "BUILD", "ACTIVE")
    deviations = (
        Deviation("POST /v1/core/virtual-machines.*", "'virtual_machine_id' is a required", NO_ID),
        Deviation("GET /v1/core/images", "has_flavor_restrictions", IN_ALL_OF),
    )

    def __init__(self) -> None:
        super().__init__()
        self.page_size: int | None = None
        """How many rows a page has at most, whatever is asked for."""
        self.tells_size = "own"
        """Which size a page tells: its ``own``, the one that was ``asked`` for, or ``none``."""

    def new_id(self) -> str:
        """An id as the vendor makes them."""
        return super().new_id().rpartition("-")[2]

    def authorised(self, request: Request) -> bool:
        """Whether the key is that of the account."""
        return request.headers.get("api_key") == KEY

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "unauthorized", "Invalid API key")

    @answers("GET", f"{CORE}flavors", Verb.OFFERS)
    def flavors(self, request: Request) -> Any:
        """All flavors of all regions."""
        return replies(FLAVORS)

    @answers("GET", "/v1/pricebook")
    def pricebook(self, request: Request) -> Any:
        """What one of each thing costs for an hour."""
        return replies("hyperstack/pricebook.json")

    @answers("GET", f"{CORE}stocks")
    def stocks(self, request: Request) -> Any:
        """What is left."""
        return replies("hyperstack/stocks.json")

    @answers("GET", f"{CORE}images")
    def images(self, request: Request) -> Any:
        """The images of a region."""
        told = replies("hyperstack/images.json")
        wanted = [one for one in told["images"] if one["region_name"] == request.args["region"]]
        return {**told, "images": wanted}

    @answers("GET", f"{CORE}environments")
    def environments(self, request: Request) -> Any:
        """All environments."""
        return self._page(
            request, "environments", [self._environment(one) for one in self._all("environment")]
        )

    @answers("POST", f"{CORE}environments")
    def add_environment(self, request: Request) -> Any:
        """Make one."""
        asked = json.loads(request.data)
        if any(one.more["name"] == asked["name"] for one in self._all("environment")):
            raise refused(409, "already_exist", "Environment name already exists")
        made = self.put("environment", {}, bills=False, **asked)
        return done(environment=self._environment(made))

    @answers("DELETE", f"{CORE}environments/<id>")
    def delete_environment(self, request: Request, id: str) -> Any:
        """Delete an empty one."""
        name = self._known(id, "environment").more["name"]
        machines = [one for one in self.instances() if one.living and one.asked["environment_name"] == name]
        keys = [one for one in self._all("key-pair") if one.more["environment_name"] == name]
        if machines or keys:
            raise refused(400, "bad_request", "Environment is not empty")
        self.end(id)
        return done()

    @answers("GET", f"{CORE}keypairs")
    def keys(self, request: Request) -> Any:
        """All key pairs."""
        return self._page(request, "keypairs", [self._key(one) for one in self._all("key-pair")])

    @answers("POST", f"{CORE}keypairs")
    def add_key(self, request: Request) -> Any:
        """Take a public key into an environment."""
        asked = json.loads(request.data)
        self._named("environment", asked["environment_name"])
        if any(one.more["name"] == asked["name"] for one in self._all("key-pair")):
            raise refused(409, "already_exist", "Key pair name already exists")
        return done(keypair=self._key(self.put("key-pair", {}, bills=False, **asked)))

    @answers("DELETE", f"{CORE}keypair/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key pair."""
        self.end(self._known(id, "key-pair").id)
        return done()

    @answers("POST", f"{CORE}virtual-machines", Verb.CREATE)
    def launch(self, request: Request) -> Any:
        """Make one machine."""
        asked = json.loads(request.data)
        flavor = next(one for one in self._flavors() if one["name"] == asked["flavor_name"])
        environment = self._named("environment", asked["environment_name"])
        if environment.more["region"] != flavor["region_name"]:
            raise refused(404, "not_found", f"Flavor {asked['flavor_name']} not found in this region")
        key = self._named("key-pair", asked["key_name"])
        if key.more["environment_name"] != asked["environment_name"]:
            raise refused(404, "not_found", "Key pair not found in this environment")
        if asked["flavor_name"] in self.full or not flavor["stock_available"]:
            raise refused(400, "bad_request", "Not enough stock to create the virtual machine")
        if any(one.living and one.asked["name"] == asked["name"] for one in self.instances()):
            raise refused(409, "already_exist", "Virtual machine name already exists")
        tags = self._tags(asked["labels"])
        boot = Boot(self.new_id(), (key.more["public_key"],), asked["user_data"])
        made = self.make(boot, asked, tags, rules=[*asked["security_rules"]])
        return done(instances=[self._row(made)])

    @answers("GET", f"{CORE}virtual-machines", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines, by pages."""
        return self._page(request, "instances", [self._row(thing) for thing in self.listed()])

    @answers("GET", f"{CORE}virtual-machines/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return done(instance=self._row(self.looked_at(self._known(id, MACHINE))))

    @answers("DELETE", f"{CORE}virtual-machines/<id>", Verb.TERMINATE)
    def delete(self, request: Request, id: str) -> Any:
        """End a machine."""
        self.end(self._known(id, MACHINE).id)
        return done()

    @answers("GET", f"{CORE}virtual-machines/<id>/hibernate", Verb.STOP)
    def hibernate(self, request: Request, id: str) -> Any:
        """Put a machine to sleep."""
        thing = self._known(id, MACHINE)
        if thing.state == "HIBERNATED":
            raise refused(400, "bad_request", "Virtual machine is hibernated already")
        thing.state = "HIBERNATED"
        return done()

    @answers("GET", f"{CORE}virtual-machines/<id>/hibernate-restore", Verb.START)
    def restore(self, request: Request, id: str) -> Any:
        """Wake a machine."""
        return self._wake(id, "HIBERNATED")

    @answers("GET", f"{CORE}virtual-machines/<id>/start", Verb.START)
    def start(self, request: Request, id: str) -> Any:
        """Start a machine that was shut down."""
        return self._wake(id, "SHUTOFF")

    @answers("POST", f"{CORE}virtual-machines/<id>/sg-rules")
    def add_rule(self, request: Request, id: str) -> Any:
        """Let somebody reach a machine."""
        thing, rule = self._known(id, MACHINE), json.loads(request.data)
        if rule in thing.more["rules"]:
            raise refused(409, "already_exist", "Rule already exists")
        thing.more["rules"].append(rule)
        return done(security_rule={"id": len(thing.more["rules"]), **rule})

    def _wake(self, id: str, state: str) -> Any:
        thing = self._known(id, MACHINE)
        if thing.state != state:
            raise refused(400, "bad_request", f"Virtual machine is not {state}")
        thing.state = self.states[-1]
        return done()

    def _all(self, kind: str) -> list[Thing]:
        return [thing for thing in self.beside() if thing.kind == kind]

    def _known(self, id: str, kind: str) -> Thing:
        thing = self.found(id, kind)
        if thing is None:
            raise refused(404, "not_found", f"The {kind} was not found")
        return thing

    def _named(self, kind: str, name: str) -> Thing:
        for thing in self._all(kind):
            if thing.more["name"] == name:
                return thing
        raise refused(404, "not_found", f"The {kind} {name} was not found")

    def _flavors(self) -> list[dict[str, Any]]:
        return [flavor for group in replies(FLAVORS)["data"] for flavor in group["flavors"]]

    def _page(self, request: Request, part: str, rows: Sequence[Any]) -> dict[str, Any]:
        size = min(int(request.args["pageSize"]), self.page_size or 100)
        start = (int(request.args["page"]) - 1) * size
        told = {"page": int(request.args["page"]), "count": len(rows)}
        if self.tells_size != "none":
            told["page_size"] = size if self.tells_size == "own" else int(request.args["pageSize"])
        return done(**told, **{part: rows[start : start + size]})

    def _environment(self, thing: Thing) -> dict[str, Any]:
        return {"id": int(thing.id), "name": thing.more["name"], "region": thing.more["region"]}

    def _key(self, thing: Thing) -> dict[str, Any]:
        environment = self._environment(self._named("environment", thing.more["environment_name"]))
        told = {"name": thing.more["name"], "public_key": thing.more["public_key"]}
        return {"id": int(thing.id), **told, "environment": environment}

    def _tags(self, labels: Iterable[str]) -> dict[str, str]:
        return dict(label.split(":", 1) for label in labels)

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked = thing.asked
        flavor = next(one for one in self._flavors() if one["name"] == asked["flavor_name"])
        reachable = thing.address if self.runs(thing) else None
        parts = ("id", "name", "cpu", "ram", "disk", "ephemeral", "gpu", "gpu_count", "features", "labels")
        return {
            "id": int(thing.id),
            "name": asked["name"],
            "status": thing.state,
            "created_at": thing.created_at.isoformat(timespec="seconds"),
            "environment": {"name": asked["environment_name"], "region": flavor["region_name"]},
            "flavor": {**{part: flavor[part] for part in parts}, "features": thing.more.get("features", {})},
            "image": {"name": asked["image_name"]},
            "keypair": {"name": asked["key_name"]},
            "fixed_ip": "10.0.0.5",
            **({"floating_ip": reachable.host, "floating_ip_status": "ATTACHED"} if reachable else {}),
            "labels": asked["labels"],
            "locked": False,
            "port_randomization": asked["enable_port_randomization"],
            "security_rules": [{"id": n, **rule} for n, rule in enumerate(thing.more["rules"], 1)],
            "volume_attachments": [],
        }
