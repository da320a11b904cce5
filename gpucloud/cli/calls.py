"""What ``--explain`` shows of HTTP calls: those that are sent, and those that a dry run keeps back."""

from __future__ import annotations

from collections.abc import Iterable

from gpucloud import calls
from gpucloud.cli.curl import curl
from gpucloud.cli.render import out


def show_calls(*, rehearse: bool = False) -> None:
    """From now on show every call before it is sent; with ``rehearse`` send none that changes something."""
    calls.listen(_show, rehearse=rehearse)


def _show(call: calls.Call) -> None:
    # As a comment, so that nobody rents anything who runs what was shown as a script.
    out.note(f"# would send: {curl(call)}" if call.kept_back else curl(call))


def remark(rehearsed: Iterable[str]) -> None:
    """Rehearse one after the other, and tell what there is to say of each."""
    for told in rehearsed:
        out.note(f"# {told}")
