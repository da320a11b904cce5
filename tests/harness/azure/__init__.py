"""Azure as a server of tests: Resource Manager, its sign-in and its retail prices, with state.

``serving`` puts one on loopback: over TLS, as Azure's clients send no token without, and its retail prices
over plain HTTP as well. What is sent and answered is checked against the types of Azure's own libraries.
"""

from tests.harness.azure.cloud import BootInfo, Cloud, Machine, Refusal
from tests.harness.azure.server import ENVIRON, SUBSCRIPTION, Server, serving

__all__ = ["ENVIRON", "SUBSCRIPTION", "BootInfo", "Cloud", "Machine", "Refusal", "Server", "serving"]
