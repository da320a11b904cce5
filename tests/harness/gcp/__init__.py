"""Google Cloud as a server on loopback: stateful, and held to Google's own description of its interface."""

from tests.harness.gcp.project import BootInfo, Project
from tests.harness.gcp.server import Google, serving

__all__ = ["BootInfo", "Google", "Project", "serving"]
