"""The skeleton of a new adapter: what ``gpucloud providers new`` writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gpucloud.errors import UsageError
from gpucloud.model import utcnow
from gpucloud.registry import names

PACKAGE: Final = '''\
"""{title}: what it rents, a link to its API's documentation, and its quirks."""

from gpucloud_{name}.adapter import {title}

__all__ = ["{title}"]
'''

API: Final = '''\
"""The requests and replies of {title}, in its own words."""

from __future__ import annotations

from typing import Final

INSTANCES: Final = "v1/instances"
'''

ADAPTER: Final = '''\
"""{title} in our words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from gpucloud.errors import Unsupported
from gpucloud.model import Instance, InstanceRef, Market, Offer, Requirements
from gpucloud.provider import (
    Credential,
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Reach,
    StoppedBilling,
    Traits,
)
from gpucloud.rest import RestProvider


class {title}(RestProvider):
    """Instances of {title}."""

    name = "{name}"
    evidence = Evidence.COMMUNITY
    as_of = date({today})
    credentials = (Credential("api_key", ("{upper}_API_KEY",), page="https://console.{name}.example"),)
    url = "https://api.{name}.example"
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({{Market.ON_DEMAND}}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=63,
        idempotent_launch=False,
        listing_lag_s=10,
    )

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """What can be rented now, at live prices."""
        raise Unsupported("{name}: offers is not written yet", provider=self.name)

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; spec.token goes into a tag, a label or the name."""
        raise Unsupported("{name}: launch is not written yet", provider=self.name)

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        raise Unsupported("{name}: get is not written yet", provider=self.name)

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        raise Unsupported("{name}: instances is not written yet", provider=self.name)

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        raise Unsupported("{name}: terminate is not written yet", provider=self.name)
'''

TEST: Final = '''\
"""{title} against the contract of all adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud.provider import Provider, ProviderSettings
from gpucloud.testing import REHEARSAL_TESTS, RENTING_TESTS, ProviderConformance
from gpucloud_{name} import {title}


class Test{title}(ProviderConformance):
    """Take a test out of ``deviations`` as soon as the adapter passes it."""

    deviations = dict.fromkeys((*RENTING_TESTS, *REHEARSAL_TESTS), "not written yet")

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Provider:
        return {title}(ProviderSettings("{name}", tmp_path))
'''


TAKEN: Final = {
    "Credential",
    "Evidence",
    "False",
    "Fuse",
    "Instance",
    "Iterable",
    "Kind",
    "Market",
    "None",
    "Offer",
    "Path",
    "Provider",
    "Reach",
    "Requirements",
    "Traits",
    "True",
    "Unsupported",
}
"""What these files mean by a word with one capital, which a class must not be named."""


def write_adapter(checkout: Path, name: str) -> list[Path]:
    """Write the files of a new adapter below a checkout and return them; nothing is overwritten.

    Raises:
        UsageError: when the name will not do, is taken, or this is no checkout.
    """
    title = name.capitalize()
    if not re.fullmatch(r"[a-z][a-z0-9]{1,20}", name):
        raise _unfit(name, "it must be one lower-case word of 2 to 21 letters and digits")
    if title in TAKEN or title.startswith("Test"):
        raise _unfit(name, f"its class would be {title}, which means something else already")
    if not (checkout / "providers").is_dir() or not (checkout / "gpucloud" / "registry.py").is_file():
        raise UsageError(
            "this is no checkout of gpucloud",
            why=f"{checkout} lacks the folder providers or the file gpucloud/registry.py",
            hint="cd to the checkout",
        )
    package = checkout / "providers" / f"gpucloud_{name}"
    tests = checkout / "tests" / "providers" / name
    if name in names() or package.exists() or tests.exists():
        raise UsageError(
            f"there is a provider {name!r} already",
            why=f"it is registered, or has {package} or {tests}",
            hint="gpucloud providers",
        )
    words = {"name": name, "title": title, "upper": name.upper(), "today": f"{utcnow():%Y, %-m, %-d}"}
    files = {
        package / "__init__.py": PACKAGE.format(**words),
        package / "api.py": API.format(**words),
        package / "adapter.py": ADAPTER.format(**words),
        package / "py.typed": "",
        tests / f"test_{name}.py": TEST.format(**words),
    }
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return list(files)


def _unfit(name: str, why: str) -> UsageError:
    return UsageError(f"{name!r} cannot be a provider", why=why, hint="gpucloud providers new acme")
