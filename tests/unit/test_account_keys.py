"""The SSH keys of an account: ours is known by what it is, and added once."""

from __future__ import annotations

import pytest

from gpucloud.account_keys import AccountKey, account_key
from gpucloud.errors import Rejected
from gpucloud.labels import key_name
from gpucloud.provider import LaunchSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE"
SPEC = LaunchSpec("gc-" + "a" * 20, "x", 0, "me", f"{KEY} me@here")
THEIRS = AccountKey("theirs", "1", "laptop", "ssh-rsa AAAA other")
OURS = AccountKey("ours", "2", "work laptop", f"{KEY} work laptop")


class Account:
    """The keys of an account, where a name can be taken by a launch that is quicker."""

    def __init__(self, *keys: AccountKey, quicker: AccountKey | None = None, taken: bool = False) -> None:
        self.keys = list(keys)
        self.added: list[str] = []
        self._quicker = quicker
        self._taken = taken

    def listed(self) -> list[AccountKey]:
        return self.keys

    def add(self, name: str, public_key: str) -> str:
        if self._quicker:
            self.keys.append(self._quicker)
        if self._taken:
            raise Rejected("the name is taken", provider="acme")
        self.added.append(name)
        return f"new {public_key.split()[1]}"


def test_a_key_is_known_by_what_it_is_and_not_by_its_comment() -> None:
    account = Account(THEIRS, OURS)
    assert account_key(SPEC, account.listed, account.add) == "ours"
    assert not account.added


def test_a_key_that_is_not_there_is_added_under_its_own_name() -> None:
    account = Account(THEIRS)
    assert account_key(SPEC, account.listed, account.add) == f"new {KEY.split()[1]}"
    assert account.added == [key_name(SPEC)]


def test_a_key_that_another_launch_has_just_added_is_used() -> None:
    account = Account(THEIRS, quicker=OURS, taken=True)
    assert account_key(SPEC, account.listed, account.add) == "ours"


def test_a_refusal_for_any_other_reason_is_told() -> None:
    account = Account(THEIRS, taken=True)
    with pytest.raises(Rejected, match="taken"):
        account_key(SPEC, account.listed, account.add)
