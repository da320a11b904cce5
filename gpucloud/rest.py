"""What providers have in common that are asked over HTTP with one API key, and tag with our words alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from gpucloud.errors import NoCapacity, ProviderError, Rejected
from gpucloud.http import HttpClient, vendor_words
from gpucloud.model import CANNOT_BE_HAD, Offer
from gpucloud.provider import Provider, ProviderSettings
from gpucloud.refusals import REFUSED
from gpucloud.replies import understood

if TYPE_CHECKING:
    from gpucloud.refusals import Refusal

T = TypeVar("T")


class RestProvider(Provider):
    """A provider behind ``url``, which the setting of that name replaces.

    Its first credential is the key, which goes into ``header``. ``min_interval_s`` is for how long the vendor
    wants to be left alone between two requests. ``refusals`` are how it says no, where its statuses do not
    tell that.
    """

    url: ClassVar[str]
    header: ClassVar[tuple[str, str]] = ("Authorization", "Bearer {}")
    min_interval_s: ClassVar[float] = 0
    refusals: ClassVar[Sequence[Refusal]] = ()
    rehearsable = True

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When there are all credentials."""
        return all(settings.credential_source(each) is not None for each in cls.credentials)

    @cached_property
    def _http(self) -> HttpClient:
        return self._client(self.min_interval_s)

    def _client(self, min_interval_s: float) -> HttpClient:
        name, value = self.header
        headers = {name: value.format(self.settings.credential(self.credentials[0]))}
        url = self.settings.table.get("url", self.url)
        return self.client(
            self.name, url, headers=headers, classify=self._refusal, min_interval_s=min_interval_s
        )

    def _read(self, validate: Callable[[Any], T], body: object, *, sent: bool = False) -> T:
        """What ``validate`` makes of a reply; ``sent`` when it answers what may have taken effect."""
        return understood(self.name, validate, body, sent=sent)

    def _with(self, values: Mapping[str, str]) -> Self:
        """The same with other credentials, by their keys, to see whether they are good."""
        table = {**self.settings.table, **values}
        other = type(self)(replace(self.settings, table=table, lookup=None))
        other.client = self.client
        return other

    def _only(self, setting: str, fitting: Sequence[str], known: Iterable[str]) -> str:
        """What fits, if it is one. Raises ``Rejected``, which tells what is known and how to choose."""
        if len(fitting) == 1:
            return fitting[0]
        raise Rejected(
            f"{self.name}: which {setting} is to be used is not clear",
            provider=self.name,
            why=f"there are {', '.join(sorted(known)) or 'none'}",
            hint=f"set {setting} below [providers.{self.name}]",
        )

    def _still_sold(self, offer: Offer, sold: Iterable[Offer]) -> None:
        """Mind, right before it is rented, that an offer is among what is sold now.

        Raises ``NoCapacity`` when it is not, or cannot be had, or costs more than it did.
        """
        now = next((one for one in sold if (one.id, one.ref) == (offer.id, offer.ref)), None)
        if now is None or now.availability in CANNOT_BE_HAD:
            raise NoCapacity(f"{self.name}: {offer.id} is not sold any more", provider=self.name)
        if now.usd_per_hour > offer.usd_per_hour:
            raise NoCapacity(
                f"{self.name}: the price of {offer.id} has changed",
                provider=self.name,
                why=f"it is ${now.usd_per_hour:f} an hour and was ${offer.usd_per_hour:f}",
                hint="look at it again: gpucloud offers --live",
            )

    def _refusal(self, status: int, body: Any) -> ProviderError | None:
        """The error for a reply that says no; also under a status of success, if a refusal is about that."""
        if status < REFUSED and isinstance(body, str):
            # Half of a good reply says nothing of what was done.
            return None
        return self._among(self.refusals, status, body)

    def _among(self, refusals: Sequence[Refusal], status: int, body: Any) -> ProviderError | None:
        """The error of the first of these that a reply is."""
        code, text = vendor_words(body)
        for one in refusals:
            if one.matches(status, code, text):
                return one.kind(f"{self.name}: {one.message}", provider=self.name, hint=one.hint)
        return None
