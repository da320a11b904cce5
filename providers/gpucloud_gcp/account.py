"""One project as it is read: by our own HTTP client, with google-auth, and without Google's SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from gpucloud.errors import AuthError, BadReply, ProviderError, RateLimited, Unreachable
from gpucloud.http import HttpClient, within
from gpucloud.provider import ProviderSettings
from gpucloud.replies import reason
from gpucloud_gcp import api
from gpucloud_gcp.auth import PRICES_SCOPE, Identity, identify
from gpucloud_gcp.errors import Fault, translate

if TYPE_CHECKING:
    from pydantic import BaseModel

    M = TypeVar("M", bound=BaseModel)

T = TypeVar("T")

PAGE: Final = "500"
"""The most rows of a page."""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """What the account may not read, in Google's words."""

    why: str


class Account:
    """The project, who asks, and what is read of it. Safe to share between threads.

    ``refusal_s`` is how long a refusal inside an operation is waited for.
    """

    def __init__(
        self, settings: ProviderSettings, client: Callable[..., HttpClient], refusal_s: float
    ) -> None:
        self._refusal_s = refusal_s
        self._settings = settings
        self._client = client
        self._lock = threading.Lock()
        self._who: Identity | None = None

    @property
    def who(self) -> Identity:
        """Who asks; found out once. Raises what ``identify`` raises."""
        with self._lock:
            if self._who is None:
                self._who = identify(self._settings, PRICES_SCOPE)
            return self._who

    @property
    def url(self) -> str:
        """Where Compute Engine answers."""
        return str(self._settings.table.get("endpoint_url", api.URL))

    @cached_property
    def http(self) -> HttpClient:
        """Requests to Compute Engine."""
        return self._client(self._settings.name, self.url, headers=self.who.headers, classify=self._classify)

    @cached_property
    def billing(self) -> HttpClient:
        """Requests to the price list."""
        url = self._settings.table.get("billing_url", api.BILLING_URL)
        return self._client(self._settings.name, url, headers=self.who.headers, classify=self._classify)

    def path(self, template: str, **names: str) -> str:
        """An address, with the project and with names that stand in it as they are."""
        return template.format(
            project=quote(self.who.project, safe=":"), **{key: quote(name) for key, name in names.items()}
        )

    def one(self, model: type[M], template: str, **names: str) -> M:
        """One thing. Raises ``NotFound`` and what a read raises."""
        return self.read(model, self.http.get(self.path(template, **names)))

    def all(self, template: str, where: str) -> Iterator[tuple[str, Any]]:
        """Everything in all zones, or regions, that answers a filter, each with ``zones/us-central1-a``.

        Raises ``Unreachable`` for a zone that could not be asked: silence is not absence.
        """
        for page in self._pages(api.AggregatedPage, template, where):
            lost = [scope for scope, inside in page.items.items() if inside.warning.code == "UNREACHABLE"]
            if page.unreachables or lost:
                raise Unreachable(
                    f"{self._settings.name} cannot list all zones",
                    provider=self._settings.name,
                    why=f"no answer from {', '.join(dict.fromkeys([*page.unreachables, *lost]))}",
                    hint="try again later",
                )
            for scope, inside in page.items.items():
                yield from ((scope, row) for row in inside.rows)

    def some(self, template: str, where: str) -> Iterator[tuple[str, Any]]:
        """Like ``all``, but of those zones that answer."""
        for page in self._pages(api.AggregatedPage, template, where):
            for scope, inside in page.items.items():
                yield from ((scope, row) for row in inside.rows)

    def listed(self, template: str, where: str = "", **names: str) -> Iterator[Any]:
        """Everything in one place that answers a filter."""
        for page in self._pages(api.ListPage, template, where, **names):
            yield from page.items

    def read(self, model: type[M], body: object) -> M:
        """A reply as what it should be. Raises ``BadReply``."""
        try:
            return model.model_validate(body)
        except ValueError as error:
            name = self._settings.name
            text = f"{name} sent a reply that cannot be read"
            raise BadReply(text, provider=name, why=reason(error)) from error

    def settle(self, operation: str, place: str, at_most_s: float) -> api.Operation | None:
        """An operation once it is over, well or not; ``None`` when that takes longer or cannot be told.

        Never raises: what was asked for has been accepted, whatever becomes of a look at it.
        """
        ends = time.monotonic() + at_most_s
        path = self.path(api.WAIT, operation=operation, place=place)
        # Google answers when it is over, or much sooner when it is busy.
        while (left := ends - time.monotonic()) > 0:
            try:
                with within(left):
                    found = self.read(api.Operation, self.http.query(path, json=None))
            except (Unreachable, RateLimited):
                pass
            except ProviderError:
                return None
            else:
                if found.done:
                    return found
            self.http.sleep(min(0.2, left))
        return None

    def confirm(self, operation: str, place: str, at_most_s: float | None = None) -> None:
        """Wait for an operation, if it does not take long. Raises the error that it ended with."""
        self._check(self.settle(operation, place, self._refusal_s if at_most_s is None else at_most_s))

    def queued(self, operation: str, zone: str, name: str) -> None:
        """Wait until an instance waits in the queue, whose operation goes on, or some seconds at most.

        Raises the error that the operation ended with.
        """
        ends = time.monotonic() + self._refusal_s
        path = self.path(api.OPERATION, operation=operation, place=f"zones/{zone}")
        over: api.Operation | None = None
        while over is None and (left := ends - time.monotonic()) > 0:
            # What was asked for has been accepted, whatever becomes of a look at it.
            with suppress(ProviderError), within(left):
                found = self.read(api.Operation, self.http.get(path))
                if found.done:
                    over = found
                elif self.one(api.Machine, api.INSTANCE, zone=zone, name=name).status == api.WAITS:
                    return
            self.http.sleep(min(0.5, left))
        self._check(over)

    def _check(self, over: api.Operation | None) -> None:
        refusal = over and self.refusal(over)
        if refusal:
            raise refusal

    def refusal(self, operation: api.Operation) -> ProviderError | None:
        """The error of ours for the first of those that an operation ended with."""
        if not operation.error.errors:
            return None
        problem = operation.error.errors[0]
        metrics = (detail.quota_info.metric_name for detail in problem.error_details)
        quota = next((name.rpartition("/")[2].upper() for name in metrics if name), "")
        fault = Fault(problem.code, problem.message, operation.http_error_status_code, quota)
        return translate(fault, self.who.project)

    def allowed(self, read: Callable[[], T]) -> T | Forbidden:
        """What a read returns, or that it is forbidden. Credentials that are refused are raised."""
        try:
            return read()
        except AuthError as error:
            if error.vendor_code == "403":
                return Forbidden(error.vendor_text)
            raise

    def _pages(self, model: type[M], template: str, where: str, **names: str) -> Iterator[M]:
        token, known = "", set[str]()
        while token not in known:
            known.add(token)
            asked = {"filter": where, "pageToken": token}
            params: Mapping[str, str] = {"maxResults": PAGE, **{k: v for k, v in asked.items() if v}}
            page = self.read(model, self.http.get(self.path(template, **names), params=params))
            yield page
            token = getattr(page, "next_page_token", "")
            if not token:
                return
        name = self._settings.name
        raise BadReply(
            f"{name} sent a reply that cannot be read",
            provider=name,
            why="the pages of a list go in a circle",
        )

    def _classify(self, status: int, body: Any) -> ProviderError | None:
        """Google says "later" with the status of "never", too."""
        with suppress(ValueError):
            for word in api.Failure.model_validate(body).reasons if status >= 400 else ():
                meant = translate(Fault(word, "", status), self.who.project)
                if isinstance(meant, RateLimited):
                    return RateLimited(meant.message, provider=meant.provider)
        return None


def zone_of(account: Account, name: str) -> str | None:
    """The zone of the instance of that name; ``None`` when there is none."""
    found = (scope for scope, _ in account.all(api.INSTANCES, f"name eq '{name}'"))
    return next((scope.rpartition("/")[2] for scope in found), None)


def past(account: Account, zone: str, name: str) -> list[api.Operation]:
    """What was done with an instance, the latest last, as far as Google remembers and tells.

    Never raises: it only explains what is known already.
    """
    where = f"targetLink eq '.*/instances/{name}'"
    with suppress(ProviderError):
        rows = account.listed(api.OPERATIONS, where, place=f"zones/{zone}")
        return sorted((account.read(api.Operation, row) for row in rows), key=lambda each: each.insert_time)
    return []
