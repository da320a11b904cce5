"""``gpucloud check``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.exit_codes import ExitCode, exit_code
from gpucloud.cli.render import failures, out
from gpucloud.errors import GpucloudError, UsageError
from gpucloud.model import Failure
from gpucloud.quantities import parse_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.check import Finding, Report
    from gpucloud.model import Cluster

COLUMNS = ("WHAT", "OK", "EXPECTED", "FOUND", "DETAIL")
OK = {True: "yes", False: "no", None: "?"}
LONGEST_LOAD = timedelta(minutes=10)


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(help="A cluster, or NAME-RANK for one of its nodes.", metavar="NAME")
    ],
    load: Annotated[
        str,
        typer.Option("--load", help="Let the GPUs work for so long, to see their clocks.", metavar="TIME"),
    ] = "",
    download: Annotated[
        str, typer.Option("--download", help="Measure how fast this comes there.", metavar="URL")
    ] = "",
) -> None:
    """Whether machines are what was rented, and well: GPUs, driver, errors, disk.

    Exits 85 when something is surely wrong; a question mark is not known, or only a warning.

    Example: gpucloud check train --load 10s
    """
    from gpucloud.cli.context import fleet
    from gpucloud.cli.nodes import find_node
    from gpucloud.fleet.check import require

    work = _load(load)
    _check_url(download)
    here = fleet()
    cluster, rank = find_node(here, name)
    ranks = range(len(cluster.rentals)) if name == cluster.name else range(rank, rank + 1)
    answers = _inspect(here, cluster, ranks, work, download)
    reports = {rank: told for rank, told in answers.items() if not isinstance(told, GpucloudError)}
    errors = {rank: told for rank, told in answers.items() if isinstance(told, GpucloudError)}
    _show(cluster, reports, errors)
    failed = [report for report in reports.values() if report.failed]
    if out.json and (errors or failed):
        raise typer.Exit(ExitCode.HOST_CHECK if failed else exit_code(next(iter(errors.values()))))
    for report in failed:
        require(report)
    for error in errors.values():
        raise error


def _load(text: str) -> timedelta | None:
    try:
        work = parse_duration(text) if text else None
    except ValueError as error:
        raise UsageError("--load is wrong", why=str(error), hint="for example --load 10s") from None
    if work is not None and not timedelta(0) < work <= LONGEST_LOAD:
        raise UsageError("--load is wrong", why="it is for 1s to 10m", hint="for example --load 10s")
    return work


def _check_url(url: str) -> None:
    if url and not url.lower().startswith(("http://", "https://")):
        raise UsageError(
            f"{url!r} cannot be downloaded", why="it is no address of the web", hint="write https://..."
        )


def _inspect(
    fleet: Fleet, cluster: Cluster, ranks: range, load: timedelta | None, download: str
) -> dict[int, Report | GpucloudError]:
    """The report of each node, all at the same time; of one that could not be asked, why not."""
    from gpucloud.parallel import run_all

    answers: dict[int, Report | GpucloudError] = {}
    done = run_all({rank: partial(_one, fleet, cluster, rank, load, download) for rank in ranks})
    for rank in ranks:
        answer = done[rank]
        if isinstance(answer, BaseException) and not isinstance(answer, GpucloudError):
            raise answer
        answers[rank] = answer
    return answers


def _one(fleet: Fleet, cluster: Cluster, rank: int, load: timedelta | None, download: str) -> Report:
    from gpucloud.fleet.check import inspect
    from gpucloud.fleet.contact import connect, node_label, on_host

    rental, label = cluster.rentals[rank], node_label(cluster, rank)
    with connect(fleet, rental, label) as connection:
        return inspect(fleet, rental, on_host(connection, rental), label=label, load=load, download=download)


def _show(cluster: Cluster, reports: Mapping[int, Report], errors: Mapping[int, GpucloudError]) -> None:
    if out.json:
        checks = [_to_json(rank, finding) for rank, report in reports.items() for finding in report.findings]
        unasked = [
            Failure(cluster.rentals[rank].provider, error.code, error.message, error.retryable)
            for rank, error in errors.items()
        ]
        out.document("check", checks=checks, failures=failures(unasked))
        return
    several = len(reports) + len(errors) > 1
    rows = [
        (*((report.label,) if several else ()), *_to_row(finding))
        for report in reports.values()
        for finding in report.findings
    ]
    out.table(("NODE", *COLUMNS) if several else COLUMNS, rows)


def _to_row(finding: Finding) -> tuple[object, ...]:
    return finding.name, OK[finding.ok], finding.expected, finding.found, finding.detail or None


def _to_json(rank: int, finding: Finding) -> dict[str, object]:
    return {
        "rank": rank,
        "name": finding.name,
        "ok": finding.ok,
        "expected": finding.expected,
        "found": finding.found,
        "detail": finding.detail,
    }
