"""Prime Intellect as its document of 2026-08-22 describes it."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

GPUS: Final = "primeintellect/gpus.json"
ME: Final = "cm2user0000000000000000"


def refused(status: int, details: str, param: str = "pod") -> Refused:
    """A refusal as Prime Intellect writes it."""
    return Refused(status, {"errors": [{"param": param, "details": details}]})


class PrimeIntellectCloud(Market):
    """One account at Prime Intellect."""

    name = "primeintellect"
    base: ClassVar[str] = "https://api.primeintellect.ai/"
    spec = "primeintellect-compute.yaml"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            r"(GET|POST|DELETE) /api/v1/.*",
            "Unknown response http status: 4",
            "the document has 401 and 422 alone; the API has 402 and 404 too (prime_cli/core/client.py of"
            " github.com/PrimeIntellect-ai/prime, read 2026-11-21)",
        ),
    )
    states = ("PROVISIONING", "PENDING", "ACTIVE")
    page_size = 3
    """The most rows that it gives at once, whatever it is asked for."""
    shows_addresses = True
    """Whether its pods have an address, which all have in their status."""

    def unauthorised(self) -> Refused:
        """As for a key that is wrong."""
        return refused(401, "Unauthorized", "token")

    @answers("GET", "/api/v1/availability/gpus", Verb.OFFERS)
    def sold(self, request: Request) -> Any:
        """A page of what can be rented."""
        asked = {"gpu_type": "gpuType", "gpu_count": "gpuCount"}
        rows = [
            row
            for row in self._gpus()
            if all(request.args.get(key, str(row[name])) == str(row[name]) for key, name in asked.items())
        ]
        first = (int(request.args["page"]) - 1) * self.page_size
        return {"items": rows[first : first + self.page_size], "totalCount": len(rows)}

    @answers("GET", "/api/v1/ssh_keys")
    def keys(self, request: Request) -> Any:
        """A page of the keys of the account."""
        return self._page(request, [self._key(thing) for thing in self.beside()])

    @answers("POST", "/api/v1/ssh_keys")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account."""
        return self._key(self.put("ssh-key", {}, bills=False, **json.loads(request.data)))

    @answers("DELETE", "/api/v1/ssh_keys/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key."""
        if not self.found(id, "ssh-key"):
            raise refused(404, "SSH key not found", "key_id")
        self.end(id)
        return {}

    @answers("POST", "/api/v1/pods", Verb.CREATE)
    def create(self, request: Request) -> Any:
        """Make one machine."""
        body = json.loads(request.data)
        asked, provider = body["pod"], body["provider"]["type"]
        wanted = {"cloudId", "gpuType", "gpuCount", "socket", "security"}
        row = next(
            (
                row
                for row in self._gpus()
                if row["provider"] == provider
                and all(asked[name] == row[name] for name in wanted)
                and asked.get("dataCenterId") == row["dataCenter"]
            ),
            None,
        )
        if row is None or row["stockStatus"] == "Unavailable" or asked["gpuType"] in self.full:
            raise refused(422, "The GPU is no longer available.")
        key = self.found(asked["sshKeyId"], "ssh-key")
        if key is None:
            raise refused(422, "SSH key not found", "sshKeyId")
        if asked["image"] not in {"custom_template", *row["images"]}:
            raise refused(422, "The image is not supported by this provider", "image")
        boot = Boot(self.new_id(), (key.more["publicKey"],))
        return self._row(self.make(boot, asked, from_text(asked["name"]), row=row))

    @answers("GET", "/api/v1/pods", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """A page of the machines."""
        return self._page(request, [self._row(thing) for thing in self.listed()])

    @answers("GET", "/api/v1/pods/status")
    def addresses(self, request: Request) -> Any:
        """How far some machines are, and where they are."""
        things = [thing for id in request.args.getlist("pod_ids") if (thing := self.found(id))]
        return {"data": [self._status(thing) for thing in things]}

    @answers("GET", "/api/v1/pods/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return self._row(self.looked_at(self._machine(id)))

    @answers("DELETE", "/api/v1/pods/<id>", Verb.TERMINATE)
    def terminate(self, request: Request, id: str) -> Any:
        """End a machine."""
        self.end(self._machine(id).id)
        return {"status": "TERMINATED"}

    def _gpus(self) -> list[dict[str, Any]]:
        return list(replies(GPUS)["items"])

    def _page(self, request: Request, rows: list[Any]) -> dict[str, Any]:
        first, limit = int(request.args["offset"]), min(int(request.args["limit"]), self.page_size)
        return {
            "data": rows[first : first + limit],
            "total_count": len(rows),
            "offset": first,
            "limit": limit,
        }

    def _machine(self, id: str) -> Thing:
        thing = self.found(id, MACHINE)
        if thing is None:
            raise refused(404, "Pod not found", "pod_id")
        return thing

    def _key(self, thing: Thing) -> dict[str, Any]:
        return {"id": thing.id, "userId": ME, "isPrimary": False, "isUserKey": True, **thing.more}

    def _connection(self, thing: Thing) -> str | list[str | None] | None:
        """Where it is, as this cloud tells it."""
        reachable = thing.address if self.runs(thing) else None
        return f"root@{reachable.host} -p {reachable.port}" if reachable else None

    def _status(self, thing: Thing) -> dict[str, Any]:
        return {
            "podId": thing.id,
            "providerType": thing.more["row"]["provider"],
            "status": thing.state,
            "sshConnection": self._connection(thing),
            "installationProgress": 100 if self.runs(thing) else 0,
        }

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked, row = thing.asked, thing.more["row"]
        return {
            "id": thing.id,
            "userId": ME,
            "name": asked["name"],
            "providerType": row["provider"],
            "status": thing.state,
            "installationStatus": thing.more.get("installed", "FINISHED" if self.runs(thing) else "PENDING"),
            "createdAt": thing.created_at.isoformat(),
            "gpuName": asked["gpuType"],
            "gpuCount": asked["gpuCount"],
            "socket": asked["socket"],
            "priceHr": row["prices"]["onDemand"] or row["prices"]["communityPrice"],
            "environmentType": asked["image"],
            "sshConnection": self._connection(thing) if self.shows_addresses else None,
            "isSpot": row.get("isSpot"),
        }
