"""The servers of all three, and the home of somebody who is signed in there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import tomlkit
import trustme

from tests.harness.aws import LOGIN
from tests.harness.azure import ENVIRON, SUBSCRIPTION
from tests.harness.gcp.server import REFRESH

ROOT: Final = Path(__file__).parents[3]
LATENCY_S: Final = 0.1
PROJECT: Final = "acme"


class Address(NamedTuple):
    """Where one cloud answers."""

    plain: str
    over_tls: str


@contextmanager
def serving(folder: Path, azure_sizes: int) -> Iterator[dict[str, Address]]:
    """All three, ready to answer; ``azure_sizes`` is how many sizes Azure lists in each region."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    words = [sys.executable, "-m", "tests.bench.clouds.server", str(LATENCY_S), str(folder / "server.pem")]
    with ExitStack() as stack:
        processes = {}
        for name, more in (("aws", []), ("gcp", []), ("azure", [str(azure_sizes)])):
            server = subprocess.Popen([*words, name, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            processes[name] = stack.enter_context(server)
            stack.callback(server.kill)
        # To make the replies takes seconds, in which the others make theirs.
        yield {name: _address(server) for name, server in processes.items()}


def _address(server: subprocess.Popen[str]) -> Address:
    assert server.stdout is not None
    plain, over_tls = json.loads(server.stdout.readline())
    return Address(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{over_tls}")


def configure(home: Path, folder: Path, at: Mapping[str, Address]) -> dict[str, str]:
    """Make a new home for somebody who is signed in at all three; returns the environment of commands."""
    login = {
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": REFRESH,
        "quota_project_id": PROJECT,
        "token_uri": f"{at['gcp'].plain}/token",
    }
    tables: dict[str, dict[str, Any]] = {
        "aws": {"endpoint_url": at["aws"].plain, "advisor_url": at["aws"].plain},
        "gcp": {"endpoint_url": at["gcp"].plain, "billing_url": at["gcp"].plain},
        "azure": {
            "arm_url": at["azure"].over_tls,
            "catalog_url": at["azure"].plain,
            "ca_file": str(folder / "ca.pem"),
            "instance_discovery": False,
        },
    }
    (home / "gpucloud").mkdir(parents=True)
    (home / "gpucloud" / "config.toml").write_text(tomlkit.dumps({"providers": tables}))
    (home / "login.json").write_text(json.dumps(login))
    return {
        **{f"XDG_{what}_HOME": str(home) for what in ("CACHE", "CONFIG", "DATA")},
        **LOGIN,
        **ENVIRON,
        "HOME": str(home),
        "AZURE_AUTHORITY_HOST": at["azure"].over_tls,
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "GOOGLE_APPLICATION_CREDENTIALS": str(home / "login.json"),
    }
