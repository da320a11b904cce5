"""The SSH keys of an account, at vendors that put those on a machine which are there already."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gpucloud.errors import NotFound, ProviderError, Rejected
from gpucloud.labels import PREFIX, key_name, key_part
from gpucloud.model import InstanceRef, SideResource
from gpucloud.provider import LaunchSpec, Provider

SSH_KEY: Final = "ssh-key"
"""What we call one among what launches share."""


@dataclass(frozen=True, slots=True)
class AccountKey:
    """One key: ``handle`` is what a launch calls it by, and ``id`` what it is deleted by."""

    handle: str
    id: str
    name: str
    public_key: str


class AccountKeys(Provider):
    """A provider whose keys are in the account; it says how they are listed, added and deleted."""

    @abstractmethod
    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account, also those of other people."""

    @abstractmethod
    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one, and return its handle. Raises ``Rejected`` when there is one of that name, or that key."""

    @abstractmethod
    def delete_account_key(self, id: str) -> None:
        """Delete one. Raises ``NotFound``."""

    def shared_resources(self) -> Iterable[SideResource]:
        """The keys that we have added to the account."""
        for key in self.account_keys():
            if key.name.startswith(PREFIX):
                yield SideResource(self.name, SSH_KEY, InstanceRef(key.id))

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one; a missing one is success."""
        with suppress(NotFound):
            self.delete_account_key(resource.ref.id)

    def _key(self, spec: LaunchSpec) -> str:
        """The handle of the spec's key, which is in the account afterwards."""
        return account_key(spec, self.account_keys, self.add_account_key)


def account_key(
    spec: LaunchSpec,
    listed: Callable[[], Iterable[AccountKey]],
    add: Callable[[str, str], str],
    taken: tuple[type[ProviderError], ...] = (Rejected,),
) -> str:
    """The handle of the spec's key: of one that is ``listed``, or else from ``add``.

    ``add`` is called with the name that a new one is to have, and its public key; ``taken`` is what it raises
    when there is such a key already.
    """
    ours = key_part(spec.public_key)

    def known() -> str | None:
        return next((key.handle for key in listed() if key_part(key.public_key) == ours), None)

    handle = known()
    if handle is not None:
        return handle
    try:
        return add(key_name(spec), spec.public_key)
    except taken:
        # Another launch, at the same time, may have been quicker.
        handle = known()
        if handle is None:
            raise
        return handle
