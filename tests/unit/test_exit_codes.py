"""Every error leads to one documented exit status, on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpucloud import errors
from gpucloud.cli import exit_codes
from gpucloud.cli.exit_codes import MEANINGS, ExitCode, exit_code
from gpucloud.errors import GpucloudError, ProviderError

EXPECTED = {
    errors.UsageError: 2,
    errors.ConfigError: 2,
    errors.NothingMatched: 3,
    errors.Locked: 75,
    # The books cannot be used: nothing that was typed is wrong, and waiting does not help.
    errors.StoreError: 1,
    errors.HostUnreachable: 5,
    errors.HostKeyChanged: 85,
    errors.HostBusy: 80,
    errors.PortClosed: 5,
    errors.SyncFailed: 84,
    errors.PriceAboveCap: 82,
    errors.BudgetRefused: 83,
    errors.HostCheckFailed: 85,
    errors.TeardownUnconfirmed: 88,
    errors.SetupFailed: 84,
    errors.OutputsNotVerified: 86,
    errors.Interrupted: 87,
    errors.AuthError: 4,
    errors.NoCapacity: 80,
    errors.QuotaExceeded: 81,
    errors.RateLimited: 5,
    errors.NotFound: 3,
    errors.Unsupported: 2,
    # What the provider takes for wrong was built by us, so it is a failure of ours until shown otherwise.
    errors.Rejected: 1,
    errors.BalanceExhausted: 83,
    errors.Unreachable: 5,
    errors.BadReply: 5,
}

PARENTS = {
    errors.GpucloudError: 1,
    errors.RemoteError: 85,
    errors.FleetError: 1,
    errors.JobError: 1,
    errors.ProviderError: 1,
}
"""Kinds of which only the special cases should be raised."""


def tree(kind: type[GpucloudError]) -> Iterator[type[GpucloudError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


OURS = [kind for kind in tree(GpucloudError) if kind.__module__ == errors.__name__]


def an_error(kind: type[GpucloudError]) -> GpucloudError:
    return kind("no", provider="acme") if issubclass(kind, ProviderError) else kind("no")


def test_every_kind_of_error_has_its_place_in_this_table() -> None:
    leaves = {kind for kind in OURS if not kind.__subclasses__()}
    assert set(EXPECTED) == leaves
    assert set(PARENTS) == set(OURS) - leaves


@pytest.mark.parametrize(("kind", "code"), [*EXPECTED.items(), *PARENTS.items()])
def test_each_kind_of_error_leads_to_its_exit_status(kind: type[GpucloudError], code: int) -> None:
    assert exit_code(an_error(kind)) == code
    assert isinstance(exit_code(an_error(kind)), ExitCode)


def test_a_kind_of_error_that_a_plugin_adds_leads_where_its_parent_does() -> None:
    class SoldOut(errors.NoCapacity):
        """A plugin's own."""

    assert exit_code(SoldOut("no", provider="acme")) is ExitCode.NO_CAPACITY


def test_every_exit_status_has_one_meaning_and_every_meaning_its_status() -> None:
    assert list(MEANINGS) == list(ExitCode)
    assert all(meaning and meaning == meaning.strip() for meaning in MEANINGS.values())
    assert len(set(MEANINGS.values())) == len(MEANINGS)


def test_the_statuses_are_those_of_the_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0, "FAILURE": 1, "USAGE": 2, "NOTHING_MATCHED": 3, "CREDENTIALS": 4, "UNREACHABLE": 5,
        "UNEXPLAINED": 6, "LOCKED": 75, "NO_CAPACITY": 80, "QUOTA": 81, "PRICE": 82, "BUDGET": 83,
        "SYNC_OR_SETUP": 84, "HOST_CHECK": 85, "OUTPUTS": 86, "INTERRUPTED": 87, "TEARDOWN": 88,
        "BY_PERSON": 130,
    }  # fmt: skip


def test_no_row_is_hidden_behind_the_row_of_a_parent() -> None:
    rows = exit_codes._BY_ERROR
    for number, (kind, _) in enumerate(rows):
        assert not [earlier for earlier, _ in rows[:number] if issubclass(kind, earlier)], kind


def test_every_row_is_needed() -> None:
    rows = exit_codes._BY_ERROR
    for number, (kind, code) in enumerate(rows):
        rest = rows[:number] + rows[number + 1 :]
        without = next((other for parent, other in rest if issubclass(kind, parent)), ExitCode.FAILURE)
        assert without is not code, kind


def test_errors_that_trying_again_may_cure_are_the_ones_that_say_so() -> None:
    assert {kind.__name__ for kind in OURS if kind.retryable} == {
        "Locked", "HostUnreachable", "HostBusy", "PortClosed", "TeardownUnconfirmed", "OutputsNotVerified",
        "Interrupted", "NoCapacity", "RateLimited", "Unreachable",
    }  # fmt: skip


def test_the_code_of_every_kind_of_error_is_its_own() -> None:
    codes = [kind.code for kind in OURS]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)


def test_every_error_has_the_three_parts_that_people_are_shown() -> None:
    for kind in OURS:
        error = an_error(kind)
        assert (error.message, str(error)) == ("no", "no")
        told = kind("what", why="because", hint="type this") if not issubclass(kind, ProviderError) else None
        if told is not None:
            assert (told.message, told.why, told.hint) == ("what", "because", "type this")
