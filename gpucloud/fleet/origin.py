"""From where SSH is to reach what is rented: from this computer alone, unless the person says otherwise."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urljoin, urlsplit

from gpucloud.calls import KeptBack
from gpucloud.errors import ConfigError, ProviderError
from gpucloud.fleet import Fleet
from gpucloud.http import HttpClient
from gpucloud.model import Rental
from gpucloud.parallel import run_all
from gpucloud.provider import Admits

log = logging.getLogger(__name__)

PATIENCE_S: Final = 3
"""How long to wait for an address: where one of the two kinds is missing, every launch waits so long."""


@dataclass(slots=True)
class Origin:
    """The networks that SSH is opened to, looked up at most once in a launch."""

    fleet: Fleet
    _found: tuple[str, ...] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def networks(self) -> tuple[str, ...]:
        """Networks such as ``203.0.113.7/32``; empty for everywhere. Raises ``ConfigError``."""
        with self._lock:
            if self._found is None:
                given = self.fleet.config.get("launch.ssh_from")
                self._found = _of_here(self.fleet) if given is None else given
            return self._found


def admitted_anew(fleet: Fleet, rental: Rental) -> bool:
    """Open SSH to the address that this computer has now, which may not be that of the launch; once each."""
    provider = fleet.provider(rental)
    if not isinstance(provider, Admits) or rental.ref is None or rental.token in fleet.admitted:
        return False
    fleet.admitted.add(rental.token)
    try:
        provider.admit(rental.ref, Origin(fleet).networks())
    except (ConfigError, ProviderError) as error:
        log.debug("%s: SSH is not opened anew: %s", rental.provider, error.message)
        return False
    except KeptBack:
        return False
    return True


def _of_here(fleet: Fleet) -> tuple[str, ...]:
    """The public addresses of this computer, as a service outside sees them."""
    urls = fleet.config.get("launch.address_urls")
    answers = run_all({url: partial(_told, url) for url in urls}, PATIENCE_S)
    found = [answer for answer in answers.values() if isinstance(answer, str)]
    if found:
        return tuple(sorted(found))
    faults = [f"{url}: {_fault(answers.get(url))}" for url in urls]
    raise ConfigError(
        "from which address this computer would log in cannot be found out",
        why="; ".join(faults) or "no service is set that tells it",
        hint="--ssh-from 203.0.113.7 with your address, or --ssh-from anywhere",
    )


def _told(url: str) -> str:
    """The address that a service sees. Raises ``ProviderError`` or ``ValueError``."""
    host, path = urljoin(url, "/"), urlsplit(url).path
    with HttpClient("address service", host, deadline_s=PATIENCE_S) as http:
        answer = http.get(path, params={"format": "json"})
    told = answer.get("ip") if isinstance(answer, dict) else None
    address = ip_address(str(told))
    if not address.is_global:
        raise ValueError(f"{address} is no public address")
    return str(ip_network(address))


def _fault(answer: object) -> str:
    if isinstance(answer, ProviderError):
        return answer.why
    return "no answer" if answer is None else str(answer)
