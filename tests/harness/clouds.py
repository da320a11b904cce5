"""The three clouds as tests of the whole program use them: a fake, its adapter's settings, and its faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from tests.harness import aws, azure, gcp
from tests.harness.acme.faults import Verb
from tests.harness.aws.cloud import backend
from tests.harness.faulty import Faulty
from tests.harness.rig import Rig

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

Route = tuple[str, str, Verb]

AWS_ACTIONS: Final = {
    "DescribeInstanceTypes": Verb.OFFERS,
    "RunInstances": Verb.CREATE,
    "DescribeInstances": Verb.LIST,
    "TerminateInstances": Verb.TERMINATE,
    "StopInstances": Verb.STOP,
    "StartInstances": Verb.START,
    "DescribeVolumes": Verb.LIST_RESOURCES,
    "DeleteVolume": Verb.REMOVE,
}
GCP_ROUTES: Final[tuple[Route, ...]] = (
    ("GET", "/aggregated/machineTypes", Verb.OFFERS),
    ("POST", "/zones/[^/]+/instances", Verb.CREATE),
    ("GET", "/aggregated/instances", Verb.LIST),
    ("GET", "/zones/[^/]+/instances/[^/]+", Verb.GET),
    ("DELETE", "/zones/[^/]+/instances/[^/]+", Verb.TERMINATE),
    ("POST", "/zones/[^/]+/instances/[^/]+/stop", Verb.STOP),
    ("POST", "/zones/[^/]+/instances/[^/]+/start", Verb.START),
    ("GET", "/aggregated/disks", Verb.LIST_RESOURCES),
    ("DELETE", "/zones/[^/]+/disks/[^/]+", Verb.REMOVE),
)
_MACHINE: Final = "/virtualMachines/[^/]+"
AZURE_ROUTES: Final[tuple[Route, ...]] = (
    ("GET", "/Microsoft.Compute/skus", Verb.OFFERS),
    ("PUT", _MACHINE, Verb.CREATE),
    ("GET", "/virtualMachines", Verb.LIST),
    ("GET", _MACHINE, Verb.GET),
    ("DELETE", _MACHINE, Verb.TERMINATE),
    ("POST", f"{_MACHINE}/deallocate", Verb.STOP),
    ("POST", f"{_MACHINE}/start", Verb.START),
    ("GET", "/publicIPAddresses", Verb.LIST_RESOURCES),
    ("DELETE", "/(disks|networkInterfaces|publicIPAddresses)/[^/]+", Verb.REMOVE),
)


@contextmanager
def rigged_aws(folder: Path) -> Iterator[Rig]:
    """Amazon's, whose SDK tries nothing twice."""
    around = _Around(_aws_verb)
    with aws.serving(around=around) as served:
        table = {"endpoint_url": served.url, "advisor_url": served.url}
        login = {**aws.LOGIN, "AWS_MAX_ATTEMPTS": "1"}
        yield Rig("aws", served.cloud, around.faulty, table, login, partial(_aws_tags, served.cloud))


def _aws_tags(cloud: aws.Cloud, id: str) -> Mapping[str, str]:
    if id in cloud.machines:
        return cloud.machines[id].tags
    volumes = (backend(region).volumes for region in cloud.regions)
    return next(({t["key"]: t["value"] for t in has[id].get_tags()} for has in volumes if id in has), {})


@contextmanager
def rigged_gcp(folder: Path) -> Iterator[Rig]:
    """Google's."""
    around = _Around(_by_route(GCP_ROUTES))
    project = gcp.Project()
    with gcp.serving(project, around=around) as served:
        table = {"endpoint_url": served.url, "billing_url": served.url}
        login = {"GOOGLE_APPLICATION_CREDENTIALS": str(served.credentials(folder))}
        yield Rig("gcp", project, around.faulty, table, login, partial(_gcp_tags, project))


def _gcp_tags(project: gcp.Project, id: str) -> Mapping[str, str]:
    # A disk has the name of its instance.
    name = id.rpartition("/")[2]
    return next((machine.tags for machine in project.instances() if machine.id == name), {})


@contextmanager
def rigged_azure(folder: Path) -> Iterator[Rig]:
    """Microsoft's."""
    around = _Around(_by_route(AZURE_ROUTES))
    with azure.serving(folder, wrap=around) as served:
        yield Rig("azure", served.cloud, around.faulty, served.table, served.environ)


RIGS: Final = {"aws": rigged_aws, "azure": rigged_azure, "gcp": rigged_gcp}


class _Around:
    """Makes the layer of faults, and keeps it."""

    def __init__(self, verb: Callable[[WSGIEnvironment, bytes], Verb | None]) -> None:
        self._verb = verb
        self.faulty: Faulty

    def __call__(self, app: WSGIApplication) -> Faulty:
        self.faulty = Faulty(app, self._verb)
        return self.faulty


def _aws_verb(environ: WSGIEnvironment, content: bytes) -> Verb | None:
    asked = parse_qs(content.decode("utf-8", "replace"))
    verb = AWS_ACTIONS.get(asked.get("Action", [""])[0])
    return Verb.GET if verb is Verb.LIST and "InstanceId.1" in asked else verb


def _by_route(routes: tuple[Route, ...]) -> Callable[[WSGIEnvironment, bytes], Verb | None]:
    def verb(environ: WSGIEnvironment, content: bytes) -> Verb | None:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        found = (v for m, pattern, v in routes if m == method and re.search(f"{pattern}$", path))
        return next(found, None)

    return verb
