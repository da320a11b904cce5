"""Every exit status of gpucloud, and which error leads to it. ``run`` and ``exec`` return the job's own."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from gpucloud import errors


class ExitCode(IntEnum):
    """The broker's own statuses."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOTHING_MATCHED = 3
    CREDENTIALS = 4
    UNREACHABLE = 5
    UNEXPLAINED = 6
    LOCKED = 75
    NO_CAPACITY = 80
    QUOTA = 81
    PRICE = 82
    BUDGET = 83
    SYNC_OR_SETUP = 84
    HOST_CHECK = 85
    OUTPUTS = 86
    INTERRUPTED = 87
    TEARDOWN = 88
    BY_PERSON = 130


MEANINGS: Final = {
    ExitCode.OK: "done; for down and run: the machine is gone, confirmed",
    ExitCode.FAILURE: "an unexpected failure",
    ExitCode.USAGE: "wrong usage or configuration, or a question that nobody could answer",
    ExitCode.NOTHING_MATCHED: "nothing has that name, or no offer matches",
    ExitCode.CREDENTIALS: "no credentials, or the provider refused them",
    ExitCode.UNREACHABLE: "a provider or a host could not be reached",
    ExitCode.UNEXPLAINED: "something bills, or was billed, that nobody wants",
    ExitCode.LOCKED: "another gpucloud is at work on it; try later",
    ExitCode.NO_CAPACITY: "nobody has capacity",
    ExitCode.QUOTA: "the quota is used up",
    ExitCode.PRICE: "every match costs more than the cap",
    ExitCode.BUDGET: "a limit on cost or duration refused or ended it",
    ExitCode.SYNC_OR_SETUP: "files could not be brought over, or the setup failed",
    ExitCode.HOST_CHECK: "machines were rented but none could be used or trusted",
    ExitCode.OUTPUTS: "the outputs are not verified; the machine is kept",
    ExitCode.INTERRUPTED: "the provider took the machine back and the job was not recovered",
    ExitCode.TEARDOWN: "the end is not confirmed: it may still be billing",
    ExitCode.BY_PERSON: "interrupted from the keyboard",
}

_BY_ERROR: Final[tuple[tuple[type[errors.GpucloudError], ExitCode], ...]] = (
    (errors.UsageError, ExitCode.USAGE),
    (errors.ConfigError, ExitCode.USAGE),
    (errors.Unsupported, ExitCode.USAGE),
    (errors.NothingMatched, ExitCode.NOTHING_MATCHED),
    (errors.NotFound, ExitCode.NOTHING_MATCHED),
    (errors.AuthError, ExitCode.CREDENTIALS),
    (errors.HostUnreachable, ExitCode.UNREACHABLE),
    (errors.PortClosed, ExitCode.UNREACHABLE),
    (errors.Unreachable, ExitCode.UNREACHABLE),
    (errors.RateLimited, ExitCode.UNREACHABLE),
    (errors.BadReply, ExitCode.UNREACHABLE),
    (errors.Locked, ExitCode.LOCKED),
    (errors.NoCapacity, ExitCode.NO_CAPACITY),
    (errors.HostBusy, ExitCode.NO_CAPACITY),
    (errors.QuotaExceeded, ExitCode.QUOTA),
    (errors.PriceAboveCap, ExitCode.PRICE),
    (errors.BudgetRefused, ExitCode.BUDGET),
    (errors.BalanceExhausted, ExitCode.BUDGET),
    (errors.SyncFailed, ExitCode.SYNC_OR_SETUP),
    (errors.SetupFailed, ExitCode.SYNC_OR_SETUP),
    (errors.HostCheckFailed, ExitCode.HOST_CHECK),
    (errors.RemoteError, ExitCode.HOST_CHECK),
    (errors.OutputsNotVerified, ExitCode.OUTPUTS),
    (errors.Interrupted, ExitCode.INTERRUPTED),
    (errors.TeardownUnconfirmed, ExitCode.TEARDOWN),
)
"""The first row whose class fits decides, so subclasses stand before their parents."""


def exit_code(error: errors.GpucloudError) -> ExitCode:
    """The exit status for an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILURE)
