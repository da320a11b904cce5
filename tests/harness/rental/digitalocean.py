"""DigitalOcean as its document of 2026-08-07 describes it."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_words
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

SIZES: Final = "digitalocean/sizes.json"
FIREWALL_ID: Final = "bb4b2611-3d72-467b-8602-{:012d}"
FIRST_ID: Final = 3164444
FEATURES: Final = ["droplet_agent", "private_networking"]


def unprocessable(message: str) -> Refused:
    """A refusal of what was asked for."""
    return Refused(422, {"id": "unprocessable_entity", "message": message})


def missing() -> Refused:
    """A refusal because there is no such thing."""
    return Refused(404, {"id": "not_found", "message": "The resource you requested could not be found."})


class DigitalOceanCloud(Market):
    """One account at DigitalOcean."""

    name = "digitalocean"
    base: ClassVar[str] = "https://api.digitalocean.com"
    spec = "digitalocean.json"
    # Its schemas are put together by allOf, of which each part would forbid what is in the others.
    strict = False
    deviations = (
        Deviation(
            "DELETE /v2/account/keys/[0-9]+",
            "Invalid path parameter: ssh_key_identifier",
            "The document marks the id as one that only replies have, and asks for it in the address.",
        ),
    )
    states = ("new", "active")

    def __init__(self) -> None:
        super().__init__()
        self.most = 200
        """How many rows a page has at most."""

    def unauthorised(self) -> Refused:
        """As for a token that is wrong."""
        return Refused(401, {"id": "unauthorized", "message": "Unable to authenticate you"})

    def new_id(self) -> str:
        """A number."""
        return str(FIRST_ID + next(self._numbers))

    @answers("GET", "/v2/sizes", Verb.OFFERS)
    def sizes(self, request: Request) -> Any:
        """All sizes, with and without GPUs."""
        return self._page(request, "sizes", replies(SIZES)["sizes"])

    @answers("GET", "/v2/account/keys")
    def keys(self, request: Request) -> Any:
        """The keys of the account."""
        return self._page(request, "ssh_keys", [self._key(key) for key in self._of("ssh-key")])

    @answers("POST", "/v2/account/keys")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account."""
        asked = json.loads(request.data)
        if any(key.more["public_key"] == asked["public_key"] for key in self._of("ssh-key")):
            raise unprocessable("SSH Key is already in use on your account")
        return 201, {"ssh_key": self._key(self.put("ssh-key", {}, bills=False, **asked))}

    @answers("DELETE", "/v2/account/keys/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key."""
        return self._delete(self.found(id, "ssh-key"))

    @answers("GET", "/v2/tags")
    def tags(self, request: Request) -> Any:
        """The tags of the account."""
        return self._page(request, "tags", [self._tag(tag) for tag in self._of("tag")])

    @answers("POST", "/v2/tags")
    def add_tag(self, request: Request) -> Any:
        """Make a tag."""
        name = json.loads(request.data)["name"]
        if self._named("tag", name):
            raise unprocessable("a tag with that name exists")
        return 201, {"tag": self._tag(self._tagged(name))}

    @answers("GET", "/v2/tags/<name>")
    def one_tag(self, request: Request, name: str) -> Any:
        """One tag."""
        tag = self._named("tag", name)
        if tag is None:
            raise missing()
        return {"tag": self._tag(tag)}

    @answers("DELETE", "/v2/tags/<name>")
    def delete_tag(self, request: Request, name: str) -> Any:
        """Forget a tag."""
        return self._delete(self._named("tag", name))

    @answers("POST", "/v2/tags/<name>/resources")
    def tag(self, request: Request, name: str) -> Any:
        """Put a tag onto machines."""
        if not self._named("tag", name):
            raise missing()
        for resource in json.loads(request.data)["resources"]:
            thing = self._machine(resource["resource_id"])
            thing.more["words"] = [*thing.more["words"], name]
        return 204, None

    @answers("GET", "/v2/firewalls")
    def firewalls(self, request: Request) -> Any:
        """All firewalls."""
        return self._page(request, "firewalls", [self._firewall(one) for one in self._of("firewall")])

    @answers("POST", "/v2/firewalls")
    def add_firewall(self, request: Request) -> Any:
        """Make a firewall, under tags that there are."""
        asked = json.loads(request.data)
        if not all(self._named("tag", name) for name in asked["tags"]):
            raise unprocessable("a tag does not exist")
        if self._named("firewall", asked["name"]):
            raise Refused(409, {"id": "conflict", "message": "duplicate name"})
        return 202, {
            "firewall": self._firewall(self.put("firewall", {}, bills=False, name=asked["name"], asked=asked))
        }

    @answers("GET", "/v2/firewalls/<id>")
    def one_firewall(self, request: Request, id: str) -> Any:
        """One firewall."""
        firewall = self.found(str(int(id[-12:])), "firewall")
        if firewall is None:
            raise missing()
        return {"firewall": self._firewall(firewall)}

    @answers("DELETE", "/v2/firewalls/<id>")
    def delete_firewall(self, request: Request, id: str) -> Any:
        """Delete a firewall, also one that is in use."""
        return self._delete(self.found(str(int(id[-12:])), "firewall"))

    @answers("POST", "/v2/droplets", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one machine."""
        asked = json.loads(request.data)
        size = next((one for one in replies(SIZES)["sizes"] if one["slug"] == asked["size"]), None)
        if size is None:
            raise unprocessable("You specified an invalid size for Droplet creation.")
        if not size["available"] or asked["region"] not in size["regions"] or size["slug"] in self.full:
            raise unprocessable("Size is not available in this region.")
        keys = [self.found(str(id), "ssh-key") for id in asked["ssh_keys"]]
        known = tuple(key.more["public_key"] for key in keys if key)
        if len(known) != len(keys):
            raise unprocessable("you specified invalid ssh key identifiers for Droplet creation.")
        for name in asked["tags"]:
            self._tagged(name)
        boot = Boot(self.new_id(), known, asked["user_data"])
        made = self.make(boot, asked, from_words(asked["tags"]), words=asked["tags"], size=size)
        return 202, {"droplet": self._row(made), "links": {"actions": []}}

    @answers("GET", "/v2/droplets", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """The machines with GPUs, if these are asked for; all that are made here have some."""
        shown = self.listed() if request.args.get("type") == "gpus" else []
        return self._page(request, "droplets", [self._row(thing) for thing in shown])

    @answers("GET", "/v2/droplets/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return {"droplet": self._row(self.looked_at(self._machine(id)))}

    @answers("DELETE", "/v2/droplets/<id>", Verb.TERMINATE)
    def destroy(self, request: Request, id: str) -> Any:
        """End one machine."""
        return self._delete(self._machine(id))

    def _of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.beside() if thing.kind == kind]

    def _named(self, kind: str, name: str) -> Thing | None:
        return next((thing for thing in self._of(kind) if thing.more["name"] == name), None)

    def _tagged(self, name: str) -> Thing:
        return self._named("tag", name) or self.put("tag", {}, bills=False, name=name)

    def _machine(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise missing()
        return thing

    def _delete(self, thing: Thing | None) -> tuple[int, None]:
        if thing is None:
            raise missing()
        self.end(thing.id)
        return 204, None

    def _page(self, request: Request, key: str, rows: list[Any]) -> Any:
        number = int(request.args.get("page", 1))
        size = min(int(request.args.get("per_page", 20)), self.most)
        shown, rest = rows[(number - 1) * size : number * size], rows[number * size :]
        there = f"{self.base}{request.path}?page={number + 1}&per_page={size}"
        links = {"pages": {"next": there, "last": there}} if rest else {}
        return {key: shown, "links": links, "meta": {"total": len(rows)}}

    def _key(self, thing: Thing) -> dict[str, Any]:
        return {"id": int(thing.id), "fingerprint": "3b:16:e4:bf", **thing.more}

    def _tag(self, thing: Thing) -> dict[str, Any]:
        name = thing.more["name"]
        count = sum(name in machine.more["words"] for machine in self.instances() if machine.living)
        return {"name": name, "resources": {"count": count, "droplets": {"count": count}}}

    def _firewall(self, thing: Thing) -> dict[str, Any]:
        told = {"id": FIREWALL_ID.format(int(thing.id)), "status": "succeeded", "droplet_ids": []}
        return {**told, "created_at": "2026-11-20T12:00:00Z", "pending_changes": [], **thing.more["asked"]}

    def _row(self, thing: Thing) -> dict[str, Any]:
        size = thing.more["size"]
        private = {"ip_address": "10.128.0.7", "netmask": "255.255.0.0", "type": "private"}
        v4 = [{**private, "gateway": "10.128.0.1"}]
        if self.runs(thing) and thing.address:
            public = {"ip_address": thing.address.host, "netmask": "255.255.240.0", "type": "public"}
            v4.append({**public, "gateway": "203.0.113.1"})
        return {
            "id": int(thing.id),
            "name": thing.asked["name"],
            **{key: size[key] for key in ("memory", "vcpus", "disk", "gpu_info")},
            "locked": False,
            "status": thing.state,
            "created_at": f"{thing.created_at:%Y-%m-%dT%H:%M:%SZ}",
            "features": FEATURES,
            "backup_ids": [],
            "next_backup_window": None,
            "snapshot_ids": [],
            "image": {"id": 191457541, "slug": str(thing.asked["image"]), "type": "base", "regions": []},
            "volume_ids": [],
            "size": size,
            "size_slug": size["slug"],
            "networks": {"v4": v4, "v6": []},
            "region": {
                "name": "somewhere",
                "slug": thing.asked["region"],
                "features": [],
                "available": True,
                "sizes": [],
            },
            "tags": thing.more["words"],
            "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
        }
