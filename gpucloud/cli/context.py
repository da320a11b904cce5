"""What a command needs to act: settings, books, providers, keys; and names resolved to what they mean."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gpucloud.cli.render import out
from gpucloud.config import Config, load
from gpucloud.errors import NothingMatched, StoreError, UsageError
from gpucloud.model import Cluster, Job

if TYPE_CHECKING:
    from gpucloud.catalog.cache import Cache
    from gpucloud.catalog.history import History
    from gpucloud.fleet import Fleet
    from gpucloud.market.cost import Readiness
    from gpucloud.remote.keys import Identity

NAME_RULE = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def config(flags: Mapping[str, str] | None = None) -> Config:
    """The settings of this command."""
    return load(flags or {}, os.environ, Path.cwd())


def fleet(flags: Mapping[str, str] | None = None, *, data_dir: Path | None = None) -> Fleet:
    """All that acts on providers and books, which are in ``data_dir`` instead of the usual place if given."""
    from gpucloud.cli.transfers import view
    from gpucloud.fleet import Fleet
    from gpucloud.registry import Registry
    from gpucloud.store import Store

    settings = config(flags)
    if data_dir:
        settings = replace(settings, data_dir=data_dir)
    return Fleet(
        store=Store(settings.data_dir),
        registry=Registry(settings),
        config=settings,
        owner=owner(settings.data_dir),
        identity=cache(lambda: _identity(settings)),
        tell=out.event,
        view=view,
    )


def offer_cache(settings: Config) -> Cache:
    """What is remembered of the market; where nothing can be remembered, the price list alone."""
    from gpucloud.catalog.cache import Cache
    from gpucloud.catalog.prices import remember

    try:
        cache = Cache(settings.data_dir / "market.db")
        remember(cache, settings.rates)
    except StoreError as error:
        out.note(f"{error.message}: {error.why}")
        cache = Cache(None)
        remember(cache, settings.rates)
    return cache


def price_history(settings: Config) -> History:
    """Every quote that was seen; its file is opened when it is used."""
    from gpucloud.catalog.history import History

    return History(settings.data_dir / "history.db")


def readiness(settings: Config) -> Readiness:
    """How long machines took until they could be used, as far as the books know."""
    from decimal import Decimal
    from statistics import median

    from gpucloud.market.cost import Readiness
    from gpucloud.store import Store

    limit = settings.duration("launch.ready_timeout").total_seconds()
    seen: Mapping[str, list[float]] = {}
    if Store.exists(settings.data_dir):
        try:
            seen = Store(settings.data_dir).journal.ready_seconds()
        except StoreError as error:
            out.note(f"{error.message}: {error.why}")
    return Readiness({name: Decimal(str(median(took))) for name, took in seen.items()}, Decimal(str(limit)))


def _identity(settings: Config) -> Identity:
    from gpucloud.remote.keys import identity

    return identity(settings.data_dir / "ssh")


def owner(folder: Path) -> str:
    """The mark of this installation on all that it rents; in a file of its own, to survive the database."""
    file = folder / "owner"
    if not file.exists():
        import socket

        from gpucloud.store import new_id

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        who = re.sub(r"[^a-z0-9]+", "-", f"{user()}-{socket.gethostname()}".lower())[:24].strip("-")
        draft = folder / f".owner.{os.getpid()}"
        draft.write_text(f"{new_id('', 6)}-{who}\n")
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text().strip()


def user() -> str:
    """Who we are on this computer."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have a number only
        return str(os.getuid())


def check_name(name: str) -> str:
    """A name that may be given to a cluster."""
    if not NAME_RULE.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a name",
            why="names are 1 to 40 lower-case letters, digits and hyphens",
            hint=f"for example {re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40] or 'train-1'}",
        )
    return name


def fresh_name() -> str:
    """A name for a cluster that was given none: the folder's, and something random."""
    from gpucloud.store import new_id

    folder = re.sub(r"[^a-z0-9]+", "-", Path.cwd().name.lower()).strip("-")[:24] or "cluster"
    return f"{folder.strip('-')}-{new_id('', 4)}"


def find_cluster(fleet: Fleet, name: str) -> Cluster:
    """The living cluster of that name. Raises ``NothingMatched`` with the name that was meant."""
    cluster = fleet.store.clusters.get(name)
    if cluster is None:
        raise _unknown("cluster", name, (c.name for c in fleet.store.clusters.living()), "gpucloud ps")
    return cluster


def find_clusters(fleet: Fleet, names: Sequence[str]) -> list[Cluster]:
    """The living clusters of these names, in which ``*`` and ``?`` stand for others. Raises as above."""
    found: dict[int, Cluster] = {}
    for name in names:
        if set(name) & set("*?["):
            matches = [c for c in fleet.store.clusters.living() if fnmatch.fnmatchcase(c.name, name)]
            if not matches:
                raise NothingMatched(
                    f"no cluster is named like {name!r}", why="none of the names fits", hint="gpucloud ps"
                )
        else:
            matches = [find_cluster(fleet, name)]
        found.update({cluster.id: cluster for cluster in matches})
    return list(found.values())


def find_job(fleet: Fleet, name: str) -> Job:
    """A job by its id, or the latest job of the cluster of that name."""
    jobs = fleet.store.jobs.all()
    found = [job for job in jobs if job.id == name] or [job for job in jobs if job.cluster_name == name]
    if not found:
        known = {name for job in jobs for name in (job.id, job.cluster_name)}
        raise _unknown("job", name, known, "gpucloud jobs")
    return found[-1]


def one_cluster(fleet: Fleet, name: str | None) -> Cluster:
    """The named cluster, or without a name the only one there is."""
    if name is not None:
        return find_cluster(fleet, name)
    living = fleet.store.clusters.living()
    if len(living) == 1:
        return living[0]
    names = ", ".join(cluster.name for cluster in living)
    raise UsageError(
        "which cluster?",
        why=f"there are {names}" if names else "there is none",
        hint="gpucloud ps, then give its name",
    )


def _unknown(kind: str, name: str, known: Iterable[str], listing: str) -> NothingMatched:
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return NothingMatched(
        f"there is no {kind} {name!r}",
        why=f"known are {some}" if names else "there is none at all",
        hint=f"did you mean {close[0]!r}?" if close else listing,
    )
