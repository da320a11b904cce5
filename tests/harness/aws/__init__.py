"""Amazon's cloud on loopback: moto's EC2, with a layer of ours for what it lacks or does otherwise.

``Cloud`` is what is true there, and what it is to refuse; ``serving`` puts it behind a port::

    with serving() as served:
        served.cloud.capacity["p5.48xlarge", "us-east-1a"] = 0
        table = {"endpoint_url": served.url, "advisor_url": served.url}
        provider = Aws(ProviderSettings("aws", folder, table=table, environ=LOGIN))

All requests, and the replies that are ours, are checked against botocore's own description of the service.
moto keeps one cloud in a process: serving another begins a new one.
"""

from tests.harness.aws.blocks import Offering
from tests.harness.aws.cloud import LOGIN, REGIONS, BootInfo, Cloud, Machine, Refusal, backend
from tests.harness.aws.server import Served, serving

__all__ = [
    "LOGIN",
    "REGIONS",
    "BootInfo",
    "Cloud",
    "Machine",
    "Offering",
    "Refusal",
    "Served",
    "backend",
    "serving",
]
