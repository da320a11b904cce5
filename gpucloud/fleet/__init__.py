"""Renting along a ranked list, waiting, ending, and keeping the books and the providers in agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpucloud.config import Config
from gpucloud.model import Event, Rental
from gpucloud.provider import Provider
from gpucloud.registry import Registry
from gpucloud.remote.progress import Viewer, unviewed
from gpucloud.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from gpucloud.remote.keys import Identity


@dataclass(frozen=True, slots=True)
class Fleet:
    """What every act on the fleet needs. ``owner`` marks the instances of this installation.

    ``tell`` takes each event worth a line while something goes on; ``view`` shows how far transfers have
    come. ``admitted`` are the instances, by token, to which SSH was opened anew for the address that this
    computer has now.
    """

    store: Store
    registry: Registry
    config: Config
    owner: str
    identity: Callable[[], Identity]
    tell: Callable[[Event], None]
    admitted: set[str] = field(default_factory=set)
    view: Viewer = unviewed

    def provider(self, rental: Rental) -> Provider:
        """The provider of a rental."""
        return self.registry.get(rental.provider)

    def identity_file(self) -> Path:
        """The private key we log in with, made when there is none; one that is there is not read."""
        from gpucloud.remote.keys import ready

        return ready(self.config.data_dir / "ssh") or self.identity().file
