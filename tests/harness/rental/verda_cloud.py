"""Verda as its clients of 2026-08 to 2026-11 know it."""

from __future__ import annotations

import json
import uuid
from typing import Any, ClassVar, Final

from werkzeug import Request

from gpucloud.labels import from_text
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import MACHINE, Boot, Market, Refused, Thing, answers, replies

TYPES: Final = "verda/instance-types.json"
SECRETS: Final = {"client_id": "id-of-the-tests", "client_secret": "secret-of-the-tests"}
PUBLIC: Final = {"/v1/oauth2/token", "/v1/instance-types", "/v1/volume-types"}
VOLUMES_GO: Final = "verdacloud-sdk-go, pkg/verda/volumes_types.go, 2026-08-13"


def refused(status: int, code: str, message: str) -> Refused:
    """A refusal as Verda writes it."""
    return Refused(status, {"code": code, "message": message})


class VerdaCloud(Market):
    """One account at Verda."""

    name = "verda"
    base: ClassVar[str] = "https://api.verda.com/v1"
    spec = "verda-handmade.yaml"
    credentials = SECRETS
    states = ("ordered", "provisioning", "running")
    deviations = (
        Deviation("GET /v1/volume-types", "price|is_shared_fs", "verdacloud-sdk-go, pkg/verda/types.go"),
        Deviation("GET /v1/volumes", "base_hourly_cost|currency|created_at", VOLUMES_GO),
    )

    def __init__(self) -> None:
        super().__init__()
        self.token = ""
        self.lasts_s = 3600
        """For how long a token is good."""
        self.wordy = False
        """Whether a create is answered with the whole instance, which the vendor's clients know too."""

    def new_id(self) -> str:
        """An id as the vendor makes them."""
        return str(uuid.UUID(int=int(super().new_id().rpartition("-")[2])))

    def authorised(self, request: Request) -> bool:
        """Whether it is public, or has the token that was told last."""
        told = request.headers.get("Authorization")
        return request.path in PUBLIC or (bool(self.token) and told == f"Bearer {self.token}")

    def unauthorised(self) -> Refused:
        """As for a token that is none."""
        return refused(401, "unauthorized_request", "Access token is missing or invalid")

    @answers("POST", "/v1/oauth2/token")
    def log_in(self, request: Request) -> Any:
        """Sell the credentials for a token."""
        asked = json.loads(request.data)
        if asked != {"grant_type": "client_credentials", **SECRETS}:
            raise refused(401, "unauthorized_request", "Invalid client id or client secret")
        self.token = f"token-{uuid.uuid4()}"
        return {
            "access_token": self.token,
            "refresh_token": "unused",
            "token_type": "Bearer",
            "expires_in": self.lasts_s,
            "scope": "cloud-api-v1",
        }

    @answers("GET", "/v1/instance-types", Verb.OFFERS)
    def types(self, request: Request) -> Any:
        """All types, for everybody."""
        return replies(TYPES)

    @answers("GET", "/v1/instance-availability")
    def availability(self, request: Request) -> Any:
        """Where some are left of which types."""
        return replies("verda/availability.json")[request.args["is_spot"]]

    @answers("GET", "/v1/locations")
    def locations(self, request: Request) -> Any:
        """All data centres."""
        return replies("verda/locations.json")

    @answers("GET", "/v1/images")
    def images(self, request: Request) -> Any:
        """The images that a type can start from."""
        supported = self._type(request.args["instance_type"])["supported_os"]
        known = replies("verda/images.json")
        return [image for image in known if image["is_cluster"] or image["image_type"] in supported]

    @answers("GET", "/v1/volume-types")
    def volume_types(self, request: Request) -> Any:
        """What disks cost."""
        return replies("verda/volume-types.json")

    @answers("GET", "/v1/ssh-keys")
    def keys(self, request: Request) -> Any:
        """The keys of the account."""
        return [{"id": thing.id, **thing.more} for thing in self.beside() if thing.kind == "ssh-key"]

    @answers("POST", "/v1/ssh-keys")
    def add_key(self, request: Request) -> Any:
        """Take a key into the account."""
        return 201, self.put("ssh-key", {}, bills=False, **json.loads(request.data)).id

    @answers("DELETE", "/v1/ssh-keys/<id>")
    def delete_key(self, request: Request, id: str) -> Any:
        """Forget a key."""
        self.end(self._known(id, "ssh-key").id)
        return 200, None

    @answers("POST", "/v1/instances", Verb.CREATE)
    def launch(self, request: Request) -> Any:
        """Make one machine, and its disk."""
        asked = json.loads(request.data)
        kind, place = asked["instance_type"], asked["location_code"]
        stock = replies("verda/availability.json")[str(asked["is_spot"]).lower()]
        left = {one["location_code"] for one in stock if kind in one["availabilities"]}
        if kind in self.full or place not in left:
            raise refused(503, "service_unavailable", "Service is currently unavailable")
        keys = tuple(self._known(id, "ssh-key").more["key"] for id in asked["ssh_key_ids"])
        tags = {tag["key"]: tag["value"] for tag in asked["tags"]}
        made = self.make(Boot(self.new_id(), keys), asked, tags)
        volume = self.put(
            "volume",
            from_text(asked["os_volume"]["name"]),
            name=asked["os_volume"]["name"],
            size=asked["os_volume"]["size"],
        )
        volume.beside = made.id
        return (202, self._row(made)) if self.wordy else (202, made.id)

    @answers("GET", "/v1/instances", Verb.LIST)
    def listing(self, request: Request) -> Any:
        """All machines that are not deleted."""
        return [self._row(thing) for thing in self.listed()]

    @answers("GET", "/v1/instances/<id>", Verb.GET)
    def one(self, request: Request, id: str) -> Any:
        """One machine."""
        return self._row(self.looked_at(self._known(id, MACHINE)))

    @answers("PUT", "/v1/instances", Verb.TERMINATE)
    def act(self, request: Request) -> Any:
        """Delete machines: with their disks, or with the volumes that are named."""
        asked = json.loads(request.data)
        (id,) = asked["id"]
        assert asked["action"] == "delete"
        self._known(id, MACHINE)
        self.end(id)
        disks = [thing.id for thing in self.beside() if thing.beside == id and "os" not in thing.more]
        for volume in asked.get("volume_ids", disks):
            self.end(self._known(volume, "volume").id)
        return 202, [{"action": "delete", "instanceId": id, "status": "success", "statusCode": 202}]

    @answers("GET", "/v1/volumes", Verb.LIST_RESOURCES)
    def volumes(self, request: Request) -> Any:
        """All disks, of machines or not."""
        return [self._volume(thing) for thing in self.beside() if thing.kind == "volume"]

    @answers("DELETE", "/v1/volumes/<id>", Verb.REMOVE)
    def delete_volume(self, request: Request, id: str) -> Any:
        """Delete a disk."""
        thing = self._known(id, "volume")
        if self.found(thing.beside):
            raise refused(400, "invalid_request", "The volume is attached")
        self.end(id)
        return 202, None

    def _type(self, name: str) -> Any:
        return next(one for one in replies(TYPES) if one["instance_type"] == name)

    def _known(self, id: str, kind: str) -> Thing:
        thing = self.found(id, kind)
        if thing is None:
            what = "instance" if kind == MACHINE else kind
            raise refused(400 if kind == MACHINE else 404, "invalid_request", f"Invalid {what} id")
        return thing

    def _volume(self, thing: Thing) -> dict[str, Any]:
        return {
            "id": thing.id,
            "name": thing.more["name"],
            "status": "attached",
            "size": thing.more["size"],
            "type": "NVMe",
            "location": "FIN-03",
            "instance_id": thing.beside or None,
            "base_hourly_cost": 0.0273972602739726,
            "currency": "usd",
        }

    def _row(self, thing: Thing) -> dict[str, Any]:
        asked = thing.asked
        known = self._type(asked["instance_type"])
        running = thing.address if self.runs(thing) else None
        return {
            "id": thing.id,
            "ip": running.host if running else None,
            "status": thing.state,
            "created_at": thing.created_at.isoformat(),
            **{name: known[name] for name in ("cpu", "gpu", "gpu_memory", "memory", "storage")},
            "hostname": asked["hostname"],
            "description": asked["description"],
            "location": asked["location_code"],
            "price_per_hour": known["price_per_hour"],
            "is_spot": asked["is_spot"],
            "instance_type": asked["instance_type"],
            "image": asked["image"],
            "startup_script_id": None,
            "ssh_key_ids": asked["ssh_key_ids"],
            "os_volume_id": next((one.id for one in self.beside() if one.beside == thing.id), None),
            "contract": "SPOT" if asked["is_spot"] else asked["contract"],
            "volume_ids": [one.id for one in self.beside() if one.beside == thing.id],
            "tags": [{"key": key, "value": value} for key, value in thing.tags.items()],
        }
