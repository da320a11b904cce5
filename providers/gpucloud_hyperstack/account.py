"""What launches share in an account: environments, and the keys in them; and its listings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from gpucloud.account_keys import AccountKey, account_key
from gpucloud.errors import NotFound, RateLimited, Rejected
from gpucloud.http import HttpClient
from gpucloud.labels import PREFIX
from gpucloud.model import InstanceRef, SideResource
from gpucloud.provider import LaunchSpec
from gpucloud.replies import understood
from gpucloud_hyperstack.api import (
    ENVIRONMENTS,
    KEYPAIR,
    KEYPAIRS,
    PAGE_SIZE,
    Environment,
    ImportedKeyPair,
    KeyPair,
    Page,
)

T = TypeVar("T")

CONFLICT: Final = (Rejected, RateLimited)
"""What is told of something that is there already."""


class Account:
    """The environments and keys behind one API key."""

    def __init__(self, provider: str, http: HttpClient) -> None:
        self._provider = provider
        self._http = http

    def shared(self) -> Iterator[SideResource]:
        """The keys that we have added, and our environments, which must be empty to be removed."""
        for key in self._keys():
            beside = key.environment and key.environment.name.startswith(PREFIX)
            if beside and key.name.startswith(PREFIX):
                yield SideResource(self._provider, "key-pair", InstanceRef(str(key.id)))
        for environment in self.listed(ENVIRONMENTS, "environments", Environment.model_validate):
            if environment.name.startswith(PREFIX):
                yield SideResource(self._provider, "environment", InstanceRef(str(environment.id)))

    def remove(self, resource: SideResource) -> None:
        """Delete one; a missing one is success."""
        path = ENVIRONMENTS if resource.kind == "environment" else KEYPAIR
        with suppress(NotFound):
            self._http.delete(f"{path}/{resource.ref.id}")

    def environment(self, region: str) -> str:
        """The name of our environment in a region, which is made if it is not there."""
        name = f"{PREFIX}{region}"

        def known() -> bool:
            listed = self.listed(ENVIRONMENTS, "environments", Environment.model_validate)
            return any(each.name == name and each.region == region for each in listed)

        if not known():
            try:
                self._http.post(ENVIRONMENTS, json={"name": name, "region": region})
            except CONFLICT:
                # Another launch may have made it in between.
                if not known():
                    raise
        return name

    def key(self, spec: LaunchSpec, environment: str) -> str:
        """What the spec's key is called in an environment, to which it is added if it is not there."""

        def listed() -> Iterator[AccountKey]:
            for key in self._keys():
                if key.environment and key.environment.name == environment:
                    yield AccountKey(key.name, str(key.id), key.name, key.public_key)

        def add(name: str, public_key: str) -> str:
            # Whether a name is taken once in an account or once in an environment is not told.
            named = f"{name}-{environment.removeprefix(PREFIX)}"
            wanted = {"environment_name": environment, "name": named, "public_key": public_key}
            reply = self._http.post(KEYPAIRS, json=wanted)
            return understood(self._provider, ImportedKeyPair.model_validate, reply).keypair.name

        return account_key(spec, listed, add, CONFLICT)

    def listed(self, path: str, part: str, validate: Callable[[Any], T]) -> Iterator[T]:
        """All pages of a listing, whose rows are in a part of each and have an id.

        A page is the last one only if it is not full and ``count`` has come together as well: it is not told
        whether that counts all rows, nor whether the size is the one that was asked for.
        """
        seen: set[str] = set()
        for page in itertools.count(1):
            body = self._http.get(path, params={"page": page, "pageSize": PAGE_SIZE})
            told = understood(self._provider, Page.model_validate, body)
            rows = understood(self._provider, lambda reply: _rows(reply, part), body)
            fresh = [row for row in rows if str(row["id"]) not in seen]
            seen |= {str(row["id"]) for row in fresh}
            for row in fresh:
                yield understood(self._provider, validate, row)
            short = told.page_size is not None and len(rows) < told.page_size
            if not fresh or (short and len(seen) >= (told.count or 0)):
                return

    def _keys(self) -> Iterator[KeyPair]:
        return self.listed(KEYPAIRS, "keypairs", KeyPair.model_validate)


def _rows(body: Any, part: str) -> list[dict[str, Any]]:
    """The rows in a part of a reply. Raises ``ValueError``."""
    rows = body.get(part)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise ValueError(f"{part} is no list of things with an id")
    return rows
