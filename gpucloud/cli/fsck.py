"""``gpucloud fsck``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.options import DryRun, Yes
from gpucloud.cli.render import ask, failures, interactive, money, out

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.reconcile import Finding, Report

COLUMNS = ("WHAT", "PROVIDER", "INSTANCE", "CLUSTER", "$/H", "DETAIL")


@app.command()
def fsck(
    fix: Annotated[bool, typer.Option("--fix", help="End what should be gone; ask about the rest.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Enter what carries our tag into lost books.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Compare the books with what every provider lists, and tell what may bill unwanted.

    Exits 6 while something does, and 5 when a provider could not be asked: silence is not absence.

    Example: gpucloud fsck --fix
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.reconcile import fsck as compare
    from gpucloud.fleet.reconcile import rebuild as enter

    here = fleet()
    report = enter(here) if rebuild else compare(here)
    if fix and not dry_run:
        for finding in report.findings:
            if finding.unexplained or finding.kind == "unasked":
                _fix(here, finding, yes=yes)
        report = compare(here)
    elif fix and out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet import rehearsal

        unwanted = (each for each in report.findings if each.kind == "should-be-gone")
        remark(rehearsal.fix(here, unwanted))
    _show(report)
    if any(finding.unexplained for finding in report.findings):
        raise typer.Exit(ExitCode.UNEXPLAINED)
    if report.failures:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _fix(fleet: Fleet, finding: Finding, *, yes: bool) -> None:
    """End what the books want gone; the rest is adopted, ended or forgotten only when a person says so."""
    from gpucloud.fleet.reconcile import FindingKind, adopt, end_finding, forget

    what = f"{finding.provider} {finding.instance_id} ({finding.detail})"
    if finding.kind is FindingKind.SHOULD_BE_GONE:
        if yes or (interactive() and ask(f"end {what}?")):
            end_finding(fleet, finding)
    elif not interactive():
        out.note(f"left alone: {what}; run this at a terminal to end, adopt or forget it")
    elif finding.kind is FindingKind.UNASKED:
        if ask(f"forget {what}, although it may be billing?"):
            forget(fleet, finding)
    elif ask(f"adopt {what} as cluster {finding.cluster}?"):
        adopt(fleet, finding)
    elif ask(f"end {what}?"):
        adopt(fleet, finding)
        end_finding(fleet, finding)


def _show(report: Report) -> None:
    for failure in report.failures:
        out.failure(failure)
    if out.json:
        out.document(
            "fsck",
            findings=[_to_json(finding) for finding in report.findings],
            failures=failures(report.failures),
        )
        return
    out.table(COLUMNS, [_to_row(finding) for finding in report.findings])
    unwanted = sum(finding.unexplained for finding in report.findings)
    silent = {failure.provider for failure in report.failures}
    asked = f"; {len(silent)} provider(s) could not be asked" if silent else ""
    out.note(f"{unwanted or 'nothing'} may bill that nobody wants{asked}")


def _to_json(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "unexplained": finding.unexplained,
        "provider": finding.provider,
        "instance_id": finding.instance_id,
        "token": finding.token,
        "cluster": finding.cluster,
        "usd_per_hour": money(finding.usd_per_hour),
        "currency": "USD",
        "detail": finding.detail,
    }


def _to_row(finding: Finding) -> tuple[object, ...]:
    price = finding.usd_per_hour
    return (
        finding.kind,
        finding.provider,
        finding.instance_id,
        finding.cluster,
        None if price is None else f"{price:.2f}",
        finding.detail,
    )
