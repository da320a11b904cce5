"""``gpucloud watch``."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urljoin

import typer

from gpucloud.calls import sending
from gpucloud.cli.app import app
from gpucloud.cli.offer_view import SHOWN, USUAL, View, to_json
from gpucloud.cli.options import Searching, Typed, parsed
from gpucloud.cli.render import encoded, out
from gpucloud.errors import GpucloudError, NoCapacity, Unreachable, UsageError
from gpucloud.model import Failure, utcnow
from gpucloud.quantities import parse_duration, parse_usd

if TYPE_CHECKING:
    from gpucloud.config import Config
    from gpucloud.market import SearchResult
    from gpucloud.model import Offer, Requirements

LEAST_PAUSE: Final = timedelta(seconds=1)
IN_REACH: Final = "availability != unavailable and availability != no-quota"
MOST_TOLD: Final = 100
NOTIFY_S: Final = 20


@app.command(cls=Searching)
def watch(
    ctx: typer.Context,
    gpu: Annotated[str, typer.Option(metavar="GPU", help="H100, H100:8, 24GB+; several with |.")] = "",
    under: Annotated[str, typer.Option(metavar="USD", help="For at most so much per GPU and hour.")] = "",
    every: Annotated[str, typer.Option(metavar="TIME", help="How often to ask.")] = "60s",
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="Give up after this.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Ask once, as from cron.")] = False,
    exec_: Annotated[str, typer.Option("--exec", metavar="CMD", help="Run this when it is found.")] = "",
    notify: Annotated[str, typer.Option(metavar="URL", help="POST what is found there, as JSON.")] = "",
) -> None:
    """Wait until something can be rented, at a price; exits with 80 when it cannot.

    Of providers that are not set up the public catalogue is read again and again if they are named. CMD gets
    the best offer as GPUCLOUD_OFFER_ID and GPUCLOUD_OFFER_USD_PER_HOUR, and its exit status is returned.

    Example: gpucloud watch --gpu H100:8 --under 2.50 --for 6h --exec 'mail -s found me@example.org'
    """
    from gpucloud.cli.context import config

    typed = Typed.of(ctx)
    wanted = _in_reach(typed.requirements(gpu, markets=()), parsed("--under", under, parse_usd))
    pause = max(parsed("--every", every, parse_duration) or LEAST_PAUSE, LEAST_PAUSE)
    limit = timedelta(0) if once else parsed("--for", for_, parse_duration)
    if notify and not notify.startswith(("https://", "http://")):
        raise UsageError(
            f"{notify} is no address", why="--notify is told by HTTP", hint="--notify https://..."
        )
    found = _Watch(config(), typed.provider, wanted).wait(pause, limit)
    View(USUAL, SHOWN).write(found)
    out.flush()
    if notify:
        _notify(notify, found.offers)
    if exec_:
        raise typer.Exit(_execute(exec_, found.offers[0]))


class _Watch:
    """Asks the same again and again. A failure is told when it is new."""

    def __init__(self, settings: Config, names: Sequence[str], wanted: Requirements) -> None:
        from gpucloud.registry import Registry

        registry = Registry(settings)
        # Who has no account there can still wait for what is published.
        rentable = [name for name in names if registry.asks(name)]
        published = [name for name in names if name not in rentable]
        self._asked = registry.select(rentable) if rentable or not names else []
        self._catalogs = registry.catalogs(published) if published else {}
        self._settings, self._wanted = settings, wanted
        self._told: set[Failure] = set()

    def wait(self, pause: timedelta, limit: timedelta | None) -> SearchResult:
        """What is found first. Raises ``NoCapacity`` when it takes longer than ``limit``."""
        end = None if limit is None else utcnow() + limit
        while True:
            found = self._look()
            if found.offers:
                return found
            if end is not None and utcnow() + pause > end:
                raise self._in_vain(found)
            time.sleep(pause.total_seconds())

    def _look(self) -> SearchResult:
        from gpucloud.cli.context import offer_cache, price_history
        from gpucloud.market import Search, Terms
        from gpucloud.market.refresh import refresh

        with offer_cache(self._settings) as cache:
            history = price_history(self._settings)
            parts = refresh(self._catalogs, (), cache, lambda *_: None, history)
            failures = [part.failure for part in parts if part.failure]
            terms = Terms(
                self._settings.duration("offers.timeout").total_seconds(),
                stand_ins=frozenset(self._catalogs) - {failure.provider for failure in failures},
                limit=MOST_TOLD,
            )
            search = Search(self._asked, self._wanted, terms, cache, history)
            (found,) = search.results()
            search.remember()
        found = replace(found, failures=(*failures, *found.failures))
        for failure in found.failures:
            if failure not in self._told:
                out.failure(failure)
        self._told = set(found.failures)
        return found

    def _in_vain(self, found: SearchResult) -> GpucloudError:
        if len(found.failures) >= len(self._asked) + len(self._catalogs):
            return Unreachable(
                "nobody could be asked",
                provider="",
                why="every provider failed",
                hint="gpucloud providers, then try again",
            )
        what = " or ".join(map(str, self._wanted.gpus)) or "what you want"
        return NoCapacity(
            f"{what} cannot be had at that price",
            provider="",
            why="no provider offered it while this was watching",
            hint="raise --under, or watch --for longer",
        )


def _in_reach(wanted: Requirements, most: Decimal | None) -> Requirements:
    """The same, and nothing that cannot be had or is dearer per GPU and hour."""
    conditions = [f"({wanted.where})" if wanted.where else "", IN_REACH]
    if most is not None:
        conditions.append(f"usd_per_gpu_hour <= {most}")
    return replace(wanted, where=" and ".join(filter(None, conditions)))


def _notify(url: str, offers: Sequence[Offer]) -> None:
    import httpx

    document = {"schema": "gpucloud.offers/1", "offers": [to_json(offer) for offer in offers]}
    headers, body = {"Content-Type": "application/json"}, encoded(document).encode()
    # Of many such addresses the path is what lets in.
    sending("POST", urljoin(url, "/<hidden>"), headers, body, changes=True)
    try:
        httpx.post(url, content=body, headers=headers, timeout=NOTIFY_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"{url} could not be told",
            provider="",
            why=str(error),
            hint="what was found is above; check the address",
        ) from error


def _execute(command: str, offer: Offer) -> int:
    environ = {
        **os.environ,
        "GPUCLOUD_OFFER_ID": offer.id,
        "GPUCLOUD_OFFER_USD_PER_HOUR": f"{offer.usd_per_hour.normalize():f}",
    }
    return subprocess.run(["sh", "-c", command], env=environ, check=False).returncode
