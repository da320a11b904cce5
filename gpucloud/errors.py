"""Every failure gpucloud can tell of, in one tree.

::

    GpucloudError
    ├── UsageError              what was typed cannot be done
    ├── ConfigError             a setting or a task file is wrong
    ├── NothingMatched          no such cluster, job, provider or offer
    ├── Locked                  another gpucloud is at work on it
    ├── StoreError              the database cannot be used
    ├── RemoteError             SSH and the host behind it
    │   ├── HostUnreachable
    │   ├── HostKeyChanged
    │   ├── HostBusy            every slot of a shared machine is taken
    │   ├── PortClosed          nothing answers at a port of the host
    │   └── SyncFailed
    ├── FleetError              renting and ending
    │   ├── PriceAboveCap
    │   ├── BudgetRefused
    │   ├── HostCheckFailed
    │   └── TeardownUnconfirmed may still be billing
    ├── JobError                work on an instance
    │   ├── SetupFailed
    │   ├── OutputsNotVerified
    │   └── Interrupted
    └── ProviderError           what a provider answered
        ├── AuthError           drops that provider for this command
        ├── NoCapacity          moves on to the next offer
        ├── QuotaExceeded       moves on to the next offer
        ├── RateLimited         moves on to the next offer
        ├── NotFound
        ├── Unsupported
        ├── Rejected
        ├── BalanceExhausted
        ├── Unreachable
        └── BadReply
"""

from __future__ import annotations


class GpucloudError(Exception):
    """A failure in three lines: what happened (the message), why, and what to type next (the hint)."""

    code = "error"
    retryable = False
    usual_why = "no more is known"
    usual_hint = "repeat it with --debug to see more"

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why or self.usual_why
        self.hint = hint or self.usual_hint


class UsageError(GpucloudError):
    """What was typed cannot be done as typed."""

    code = "usage"


class ConfigError(GpucloudError):
    """A configuration or task file is wrong."""

    code = "config"


class NothingMatched(GpucloudError):
    """Nothing has that name, or no offer answers the requirements."""

    code = "nothing-matched"


class Locked(GpucloudError):
    """Another gpucloud process is at work on the same thing; trying later may succeed."""

    code = "locked"
    retryable = True


class StoreError(GpucloudError):
    """The database cannot be read or written."""

    code = "store"


class RemoteError(GpucloudError):
    """Something failed on the way to, or on, a rented host."""

    code = "remote"


class HostUnreachable(RemoteError):
    """No SSH connection could be made or kept."""

    code = "host-unreachable"
    retryable = True


class HostKeyChanged(RemoteError):
    """The host showed another key than the pinned one: it is not the machine it was."""

    code = "host-key-changed"


class HostBusy(RemoteError):
    """Every slot of a shared machine is taken, by us or by somebody else."""

    code = "host-busy"
    retryable = True


class PortClosed(RemoteError):
    """Nothing answers at a port that the host was to lead to."""

    code = "port-closed"
    retryable = True


class SyncFailed(RemoteError):
    """Files could not be brought over, or not all of them."""

    code = "sync-failed"


class FleetError(GpucloudError):
    """Renting or ending did not go as it must."""

    code = "fleet"


class PriceAboveCap(FleetError):
    """Every matching offer costs more than the cap allows."""

    code = "price-above-cap"


class BudgetRefused(FleetError):
    """A budget or a policy does not allow it."""

    code = "budget-refused"


class HostCheckFailed(FleetError):
    """Machines were rented but none was usable, and no offer is left."""

    code = "host-check-failed"


class TeardownUnconfirmed(FleetError):
    """The provider did not prove that the instance is gone."""

    code = "teardown-unconfirmed"
    retryable = True


class JobError(GpucloudError):
    """The job could not be brought to its end."""

    code = "job"


class SetupFailed(JobError):
    """The setup script ended with a failure, so the job was not run."""

    code = "setup-failed"


class OutputsNotVerified(JobError):
    """Declared outputs are not home with the right checksums; the machine is kept."""

    code = "outputs-not-verified"
    retryable = True


class Interrupted(JobError):
    """The provider took the machine back and the job was not recovered."""

    code = "interrupted"
    retryable = True


class ProviderError(GpucloudError):
    """A provider said no, or nothing that can be understood.

    ``vendor_code`` and ``vendor_text`` are the provider's own words. ``outcome_unknown`` is true when a
    create may have taken effect although it failed here: it must be settled by listing for the token.
    """

    code = "provider"

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        why: str = "",
        hint: str = "",
        vendor_code: str = "",
        vendor_text: str = "",
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, why=why or vendor_text or vendor_code, hint=hint)
        self.provider = provider
        self.vendor_code = vendor_code
        self.vendor_text = vendor_text
        self.outcome_unknown = outcome_unknown


class AuthError(ProviderError):
    """No credentials, or the provider refused them."""

    code = "auth"
    usual_why = "the provider wants to know who asks"
    usual_hint = "gpucloud providers"


class NoCapacity(ProviderError):
    """Out of stock here and now. ``lasting`` says whether it is worth remembering for a while."""

    code = "no-capacity"
    usual_why = "the provider has none left here and now"
    usual_hint = "try again later, or ask for something else"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        why: str = "",
        hint: str = "",
        lasting: bool = True,
        vendor_code: str = "",
        vendor_text: str = "",
    ) -> None:
        super().__init__(
            message, provider=provider, why=why, hint=hint, vendor_code=vendor_code, vendor_text=vendor_text
        )
        self.lasting = lasting


class QuotaExceeded(ProviderError):
    """The account may not rent more of this."""

    code = "quota"
    usual_why = "the account may not rent more of this"
    usual_hint = "ask the provider for a higher quota, or take another --provider"


class RateLimited(ProviderError):
    """Too many requests; nothing was done. ``retry_after`` is in seconds when the provider said so."""

    code = "rate-limited"
    usual_why = "too many requests in too short a time"
    usual_hint = "try again in a minute"
    retryable = True

    def __init__(
        self, message: str, *, provider: str, retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, provider=provider, hint=hint)
        self.retry_after = retry_after


class NotFound(ProviderError):
    """The provider knows no such thing."""

    code = "not-found"
    usual_why = "the provider does not know it"
    usual_hint = "gpucloud fsck"


class Unsupported(ProviderError):
    """The provider cannot do this at all."""

    code = "unsupported"
    usual_why = "the provider has no such thing"
    usual_hint = "gpucloud providers"


class Rejected(ProviderError):
    """The provider refused the request as wrong."""

    code = "rejected"
    usual_why = "the provider takes the request for wrong"
    usual_hint = "repeat it with --debug to see request and reply"


class BalanceExhausted(ProviderError):
    """The account has no money left."""

    code = "balance"
    usual_why = "the account has no money left"
    usual_hint = "add funds at the provider"


class Unreachable(ProviderError):
    """No answer, or a failure on the provider's side; ``retry_after`` as in ``RateLimited``."""

    code = "unreachable"
    usual_why = "it did not answer, or failed on its side"
    usual_hint = "try again later"
    retryable = True
    retry_after: float | None = None


class BadReply(ProviderError):
    """An answer that makes no sense."""

    code = "bad-reply"
    usual_why = "its answer makes no sense"
    usual_hint = "repeat it with --debug to see the reply"
