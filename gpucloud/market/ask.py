"""Put one question to every provider at once; a fault of one never hides another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar, cast

from gpucloud.errors import GpucloudError
from gpucloud.http import within
from gpucloud.model import Failure, Instance, Offer, Requirements, SideResource
from gpucloud.parallel import run_all
from gpucloud.provider import HasSideResources, Provider

log = logging.getLogger(__name__)
T = TypeVar("T")

IN_TIME: Final = 0.9
"""The part of the time in which an adapter must be done, so that its own reason is told when it is not."""


def list_instances(
    providers: Sequence[Provider], timeout_s: float
) -> tuple[dict[str, list[Instance]], list[Failure]]:
    """Every instance with our tag, by provider; a provider that failed or was late is among the failures."""
    return ask_all(providers, lambda p: _all(Instance, p.instances()), timeout_s)


def list_side_resources(
    providers: Sequence[Provider], timeout_s: float
) -> tuple[dict[str, list[SideResource]], list[Failure]]:
    """All with our tag that bills beside instances, as ``list_instances`` does; few providers have such."""
    able = [provider for provider in providers if isinstance(provider, HasSideResources)]
    return ask_all(able, _side_resources, timeout_s)


def _side_resources(provider: Provider) -> list[SideResource]:
    return _all(SideResource, cast(HasSideResources, provider).side_resources())


def ask_all(
    providers: Sequence[Provider], question: Callable[[Provider], T], timeout_s: float
) -> tuple[dict[str, T], list[Failure]]:
    """Put one question to all providers at once, under one deadline; a fault of one never hides another."""
    asked = {provider.name: partial(_ask, question, provider, timeout_s) for provider in providers}
    done = run_all(asked, timeout_s)
    found: dict[str, T] = {}
    failures: list[Failure] = []
    for name in asked:
        answer = done.get(name)
        if name not in done:
            failures.append(too_late(name, timeout_s))
        elif isinstance(answer, BaseException):
            log.debug("%s failed", name, exc_info=answer)
            failures.append(to_failure(name, answer))
        else:
            found[name] = cast(T, answer)
    return found, failures


def _ask(question: Callable[[Provider], T], provider: Provider, timeout_s: float) -> T:
    with within(timeout_s * IN_TIME):
        return question(provider)


def too_late(provider: str, timeout_s: float) -> Failure:
    """A provider that has not answered in time."""
    return Failure(provider, "timeout", f"no answer within {timeout_s:g} s", True)


def to_failure(provider: str, error: BaseException) -> Failure:
    """An error of one provider as a line beside the answers of the others."""
    if isinstance(error, GpucloudError):
        message = error.message.removeprefix(f"{provider}: ")
        if error.why != error.usual_why:
            message += f" ({error.why})"
        return Failure(provider, error.code, message, error.retryable)
    return Failure(provider, "bug", f"{type(error).__name__}: {error}", False)


def offers_of(provider: Provider, wanted: Requirements) -> list[Offer]:
    """What one provider answers. Raises what it raises."""
    return _all(Offer, provider.offers(wanted))


def _all(kind: type[T], found: Iterable[T]) -> list[T]:
    """Everything of one answer; a stray thing in it must fail its provider, not the whole command."""
    listed = list(found)
    for item in listed:
        if not isinstance(item, kind):
            raise TypeError(f"{item!r} is not an {kind.__name__}")
    return listed
