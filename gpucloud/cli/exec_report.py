"""How a command has ended on its nodes: the exit status, a summary for the person, a document for scripts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gpucloud.cli.exit_codes import exit_code
from gpucloud.cli.node_output import Collected, Presenter, ranges
from gpucloud.cli.render import out
from gpucloud.fleet.contact import node_label
from gpucloud.fleet.node_events import How, NodeEnd
from gpucloud.redact import scrub
from gpucloud.remote.ending import Outcome

if TYPE_CHECKING:
    from gpucloud.model import Cluster

_ENDED = {
    Outcome.NONE: "it was over",
    Outcome.TERM: "ended",
    Outcome.KILL: "killed, it did not end on SIGTERM",
    Outcome.LEFT: "it may still run there",
    None: "ended",
}


class Report:
    """What is known of the nodes on which a command was to run."""

    def __init__(self, cluster: Cluster, ranks: Sequence[int]) -> None:
        self._cluster = cluster
        self._ranks = ranks
        self._ends: dict[int, NodeEnd] = {}

    def add(self, end: NodeEnd) -> None:
        """A node has ended."""
        self._ends[end.rank] = end

    @property
    def status(self) -> int:
        """The worst: where a node could not be used the broker's status for that, else the highest of all."""
        broken = [int(exit_code(end.error)) for end in self._ends.values() if end.error]
        return max(broken or [end.status or 0 for end in self._ends.values()], default=0)

    def tell(self, *, interrupted: bool) -> None:
        """Say which nodes failed and how. Raises what went wrong with the only node."""
        ends = [self._ends[rank] for rank in sorted(self._ends)]
        if len(self._ranks) == 1:
            for end in ends:
                if end.error and not interrupted:
                    raise end.error
                if end.how is not How.EXITED:
                    out.note(f"gpucloud: {self._name(str(end.rank))}: {self._reason(end)}")
            return
        reasons: dict[str, list[int]] = defaultdict(list)
        for end in ends:
            if not end.good:
                reasons[self._reason(end)].append(end.rank)
        failed = sum(map(len, reasons.values()))
        if failed:
            out.note(f"gpucloud: {failed} of {len(self._ranks)} nodes did not succeed")
        for reason, ranks in reasons.items():
            out.note(f"  {self._name(ranges(ranks))}: {reason}")

    def abandoned(self) -> None:
        """Say where it may go on, because nobody waited for its end."""
        left = [rank for rank in self._ranks if rank not in self._ends]
        if left:
            out.note(f"gpucloud: {self._name(ranges(left))}: it may still run there")

    def document(self, presenter: Presenter) -> None:
        """Write ``gpucloud.exec/1``; what nodes have written is in it where it was collected."""
        broken = [end for end in self._ends.values() if end.error]
        out.long_document(
            "exec",
            "nodes",
            self._nodes(presenter),
            code_from="broker" if broken else "job",
            failures=[
                self._failure(self._ends[rank]) for rank in sorted(self._ends) if self._ends[rank].error
            ],
        )

    def _nodes(self, presenter: Presenter) -> Iterator[dict[str, object]]:
        for rank, end in sorted(self._ends.items()):
            node: dict[str, object] = {
                "rank": rank,
                "name": node_label(self._cluster, rank),
                "exit_code": end.status,
                "state": end.how,
                "may_still_run": end.outcome is Outcome.LEFT,
                "seconds": round(end.seconds, 3),
            }
            if isinstance(presenter, Collected):
                for stderr, name in enumerate(("stdout", "stderr")):
                    stream = presenter.streams[rank, bool(stderr)]
                    node[name] = b"".join(stream.pieces()).decode("utf-8", "replace")
                    node[f"{name}_bytes_left_out"] = stream.left_out
            yield node

    def _failure(self, end: NodeEnd) -> dict[str, object]:
        assert end.error is not None
        return {
            "rank": end.rank,
            "name": node_label(self._cluster, end.rank),
            "code": end.error.code,
            "message": scrub(end.error.message),
            "why": scrub(end.error.why),
            "hint": scrub(end.error.hint),
            "retryable": end.error.retryable,
        }

    def _name(self, ranks: str) -> str:
        """How messages name some nodes."""
        if self._cluster.nodes == 1:
            return self._cluster.name
        return f"{self._cluster.name}-{ranks if ranks.isdigit() else f'[{ranks}]'}"

    def _reason(self, end: NodeEnd) -> str:
        if end.error:
            what = end.error.message.removeprefix(node_label(self._cluster, end.rank)).strip()
            return f"{what} ({end.error.why})"
        if end.how is How.EXITED:
            return f"exit status {end.status}"
        if end.how is How.NOT_STARTED:
            return "not started"
        return f"timed out, {_ENDED[end.outcome]}" if end.how is How.TIMED_OUT else _ENDED[end.outcome]
