"""Vultr as its document of 2023-02 describes it, and as it has been seen to be since."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_words
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

METAL: Final = "vbm"


def refused(status: int, message: str) -> Refused:
    """A refusal as Vultr writes it."""
    return Refused(status, {"error": message, "status": status})


class VultrCloud(Market):
    """One account at Vultr."""

    name = "vultr"
    base: ClassVar[str] = "https://api.vultr.com/v2"
    spec = "vultr.json"
    states = ("pending", "active")
    deviations = (
        Deviation(
            "GET /v2/plans(-metal)?|POST /v2/bare-metals",
            "unexpected|is not of type 'integer'|required property",
            "The document is older than prices by the hour, GPUs and the present names of plans_metal and"
            " bare_metal: gpuhunt 0.1.34 and govultr of 2026.",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.most = 500
        """How many rows a page has at most."""
        self.stock = {
            "ewr": {"vcg-a100-12c-120g-80vram", "vcg-h100-216c-1914gb-640vram"},
            "ord": {"vbm-256c-2048gb-8-mi300x-gpu"},
        }
        """What a location has left."""

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "Invalid API token.")

    @answers("GET", "/v2/regions")
    def regions(self, request: Request) -> Any:
        """All locations."""
        return self._page(request, "regions", replies("vultr/regions.json"))

    @answers("GET", "/v2/plans", Verb.OFFERS)
    def plans(self, request: Request) -> Any:
        """All plans of virtual machines."""
        return self._page(request, "plans", replies("vultr/plans.json"))

    @answers("GET", "/v2/plans-metal")
    def plans_metal(self, request: Request) -> Any:
        """All plans of bare metal."""
        return self._page(request, "plans_metal", replies("vultr/plans-metal.json"))

    @answers("GET", "/v2/regions/<region>/availability")
    def left(self, request: Request, region: str) -> Any:
        """The plans of a kind of which a location has some left."""
        kind = request.args["type"]
        left = [id for id in self.stock.get(region, ()) if self._plan(id)["kind"] == kind]
        return {"available_plans": sorted(left)}

    @answers("GET", "/v2/os")
    def systems(self, request: Request) -> Any:
        """All operating systems."""
        return self._page(request, "os", replies("vultr/os.json"))

    @answers("GET", "/v2/ssh-keys")
    def keys(self, request: Request) -> Any:
        """The keys of the account."""
        return self._page(request, "ssh_keys", [self._key(key) for key in self._of("ssh-key")])

    @answers("POST", "/v2/ssh-keys")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account."""
        key = self.put("ssh-key", {}, bills=False, **json.loads(request.data))
        return 201, {"ssh_key": self._key(key)}

    @answers("DELETE", "/v2/ssh-keys/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key."""
        return self._delete(id, "ssh-key", "Invalid SSH Key.")

    @answers("GET", "/v2/firewalls")
    def groups(self, request: Request) -> Any:
        """The firewall groups of the account."""
        return self._page(request, "firewall_groups", [self._group(one) for one in self._of("group")])

    @answers("POST", "/v2/firewalls")
    def add_group(self, request: Request) -> Any:
        """Make a group, which lets nobody in."""
        group = self.put("group", {}, bills=False, rules=[], **json.loads(request.data))
        return 201, {"firewall_group": self._group(group)}

    @answers("GET", "/v2/firewalls/<id>")
    def one_group(self, request: Request, id: str) -> Any:
        """One group."""
        return {"firewall_group": self._group(self._there(id, "group", "Firewall group not found."))}

    @answers("DELETE", "/v2/firewalls/<id>")
    def delete_group(self, request: Request, id: str) -> Any:
        """Delete a group, also one that is in use."""
        return self._delete(id, "group", "Firewall group not found.")

    @answers("GET", "/v2/firewalls/<id>/rules")
    def rules(self, request: Request, id: str) -> Any:
        """Whom a group lets in."""
        rules = self._there(id, "group", "Firewall group not found.").more["rules"]
        return self._page(request, "firewall_rules", rules)

    @answers("POST", "/v2/firewalls/<id>/rules")
    def add_rule(self, request: Request, id: str) -> Any:
        """Let somebody into a group."""
        rules = self._there(id, "group", "Firewall group not found.").more["rules"]
        rules.append({"id": len(rules) + 1, "action": "accept", **json.loads(request.data)})
        return 201, {"firewall_rule": rules[-1]}

    @answers("POST", "/v2/instances", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one virtual machine."""
        return 202, {"instance": self._row(self._made(request, metal=False))}

    @answers("POST", "/v2/bare-metals", Verb.CREATE)
    def create_metal(self, request: Request) -> Any:
        """Make one of bare metal."""
        return 202, {"bare_metal": self._row(self._made(request, metal=True))}

    @answers("GET", "/v2/instances", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All virtual machines."""
        shown = [self._row(thing) for thing in self.listed() if not thing.more["metal"]]
        return self._page(request, "instances", shown)

    @answers("GET", "/v2/bare-metals")
    def listing_metal(self, request: Request) -> Any:
        """All machines of bare metal."""
        shown = [self._row(thing) for thing in self.instances() if thing.living and thing.more["metal"]]
        return self._page(request, "bare_metals", shown)

    @answers("GET", "/v2/instances/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One virtual machine."""
        return {"instance": self._row(self.looked_at(self._machine(id, metal=False)))}

    @answers("GET", "/v2/bare-metals/<id>")
    def one_metal(self, request: Request, id: str) -> Any:
        """One of bare metal."""
        return {"bare_metal": self._row(self.looked_at(self._machine(id, metal=True)))}

    @answers("PATCH", "/v2/instances/<id>")
    def change(self, request: Request, id: str) -> Any:
        """Put a virtual machine into another group."""
        thing = self._machine(id, metal=False)
        thing.more["group"] = json.loads(request.data)["firewall_group_id"]
        return 202, {"instance": self._row(thing)}

    @answers("DELETE", "/v2/instances/<id>", Verb.TERMINATE)
    def destroy(self, request: Request, id: str) -> Any:
        """End one virtual machine."""
        self.end(self._machine(id, metal=False).id)
        return 204, None

    @answers("DELETE", "/v2/bare-metals/<id>")
    def destroy_metal(self, request: Request, id: str) -> Any:
        """End one of bare metal."""
        self.end(self._machine(id, metal=True).id)
        return 204, None

    def _plan(self, id: str) -> Any:
        known = [*replies("vultr/plans.json"), *replies("vultr/plans-metal.json")]
        plan = next((plan for plan in known if plan["id"] == id), None)
        if plan is None:
            raise refused(400, "Invalid plan.")
        return {**plan, "kind": METAL if id.startswith(METAL) else plan["type"]}

    def _made(self, request: Request, *, metal: bool) -> Thing:
        asked = json.loads(request.data)
        plan = self._plan(asked["plan"])
        if (plan["kind"] == METAL) != metal:
            raise refused(400, "Invalid plan.")
        if plan["id"] not in self.stock.get(asked["region"], ()) or plan["id"] in self.full:
            raise refused(400, "Selected plan is not available due to capacity in this region")
        keys = [self._there(id, "ssh-key", "Invalid sshkey_id.") for id in asked["sshkey_id"]]
        known = tuple(key.more["ssh_key"] for key in keys)
        boot = Boot(self.new_id(), known, base64.b64decode(asked["user_data"]).decode())
        group = asked.get("firewall_group_id", "")
        return self.make(boot, asked, from_words(asked["tags"]), metal=metal, group=group)

    def _of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.beside() if thing.kind == kind]

    def _there(self, id: str, kind: str, message: str) -> Thing:
        thing = self.found(id, kind)
        if thing is None:
            raise refused(404, message)
        return thing

    def _machine(self, id: str, *, metal: bool) -> Thing:
        thing = self._there(id, MACHINE, "Invalid instance-id.")
        if thing.more["metal"] != metal:
            # This is how it refuses ids of the other kind.
            raise refused(400, "Invalid instance-id.")
        return thing

    def _delete(self, id: str, kind: str, message: str) -> tuple[int, None]:
        self.end(self._there(id, kind, message).id)
        return 204, None

    def _page(self, request: Request, key: str, rows: list[Any]) -> Any:
        try:
            start = int(base64.b64decode(request.args.get("cursor", "MA==")))
        except ValueError:
            # What it makes of a cursor that is not its own is not known.
            start = len(rows)
        end = start + min(int(request.args.get("per_page", 100)), self.most)
        following = base64.b64encode(str(end).encode()).decode() if end < len(rows) else ""
        return {key: rows[start:end], "meta": {"total": len(rows), "links": {"next": following, "prev": ""}}}

    def _key(self, thing: Thing) -> dict[str, Any]:
        return {"id": thing.id, "date_created": "2026-11-20T12:00:00+00:00", **thing.more}

    def _group(self, thing: Thing) -> dict[str, Any]:
        inside = [one for one in self.instances() if one.living and one.more["group"] == thing.id]
        told = {"id": thing.id, "description": thing.more["description"], "instance_count": len(inside)}
        return {**told, "rule_count": len(thing.more["rules"]), "max_rule_count": 50}

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, up = thing.asked, self.runs(thing)
        told = {
            "id": thing.id,
            "os": "Ubuntu 22.04 x64",
            "main_ip": thing.address.host if up and thing.address else "0.0.0.0",
            "region": asked["region"],
            "plan": asked["plan"],
            "date_created": f"{thing.created_at:%Y-%m-%dT%H:%M:%S+00:00}",
            "status": thing.state,
            "label": asked["label"],
            "tags": asked["tags"],
        }
        if thing.more["metal"]:
            return told
        health = thing.more.get("health", "ok" if up else "none")
        power = thing.more.get("power", "running" if up else "stopped")
        inside = "10.1.96.3" if asked.get("enable_vpc") else ""
        return {
            **told,
            "power_status": power,
            "server_status": health,
            "hostname": asked["hostname"],
            "internal_ip": inside,
            "firewall_group_id": thing.more["group"],
        }
