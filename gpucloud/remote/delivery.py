"""The conversation of a push: what is there, what is to change, and whether all has come."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from gpucloud.remote.agent.frames import Broken, Frames
from gpucloud.remote.agent.manifest import ROW, Changing, digest, join, row, rows
from gpucloud.remote.answers import Answers, Gone, State, unfinished
from gpucloud.remote.contents import SPECULATIVE, Contents
from gpucloud.remote.difference import Plan, difference
from gpucloud.remote.here import Here, refuse_twins
from gpucloud.remote.host import Host
from gpucloud.remote.memory import Memory, Remembered
from gpucloud.remote.meter import Meter
from gpucloud.remote.outgoing import PACK, Lane, Outgoing
from gpucloud.remote.progress import Phase
from gpucloud.remote.tree import Tree

log = logging.getLogger(__name__)


class Delivery:
    """A push over the main connection."""

    def __init__(
        self, host: Host, key: str, here: Here, memory: Memory, meter: Meter, *, verify: bool
    ) -> None:
        self.words = [key, here.target]
        self._host = host
        self._here = here
        self._memory = memory
        self._verify = verify
        self._meter = meter
        self._answers = Answers(host.label)
        self.plan = Plan({})
        self.out = Outgoing(here.root, here.alias, meter)
        self.files = 0
        self.size = 0

    def listen(self, frames: Frames) -> None:
        """Take what the host says."""
        self._answers.listen(frames)

    def hang_up(self) -> None:
        """Nothing more will be heard."""
        self._answers.hang_up()

    def talk(self, frames: Frames) -> None:
        """Make what is there what is here."""
        try:
            self._talk(frames)
        except Gone:
            log.debug("the host has ended the conversation")

    def _talk(self, frames: Frames) -> None:
        known = self._memory.recall()
        if known:
            self._answers.state = State(known.grain, known.modes, known.cases)
        frames.send(b"h", digest(known.listing) if known else b"")
        tree = self._here.tree()
        quick = False
        if known:
            self._compare(known.listing, tree)
            quick = not self._verify and _is_quick(self.plan)
            if quick:
                self._send_quick(frames)
            else:
                frames.send(b"i")
        listing = known.listing if known else None
        there = self._answers.there(listing)
        if there is not listing:
            # What was sent on the chance of it has been passed over.
            frames.send(b"g")
            self.out = Outgoing(self._here.root, self._here.alias, self._meter)
            self._compare(there, tree)
        elif quick:
            return
        self._answers.ping(frames)
        self._answers.informed()
        contents = Contents(self._host, self.words, self._answers, frames, self.out, self.plan)
        if self._verify:
            self._meter.begin(Phase.VERIFYING)
        contents.compare(tree, verify=self._verify)
        self._begin()
        self._prepare(frames)
        contents.send()
        frames.send(b".")

    def _compare(self, listing: dict[bytes, bytes], tree: Tree) -> None:
        state = self._answers.state
        if not state.cases:
            refuse_twins(tree, self._host.label)
        try:
            self.plan = difference(listing, tree, self._here.unseen(), state.grain, state.modes)
        except ValueError as error:
            raise Broken(str(error)) from error

    def _send_quick(self, frames: Frames) -> None:
        """Send few changes before the host has said that they are all."""
        self.plan.settle()
        self._begin()
        self._prepare(frames)
        self.out.offer(self.plan.send, [])
        lane = Lane(0, self.out, frames)
        lane.compress = True
        while piece := self.out.take(0):
            lane.send(piece)
        frames.send(b".")

    def _begin(self) -> None:
        self.files, self.size = self.plan.totals()
        if self.files:
            self._meter.begin(Phase.SENDING, files=self.files, size=self.size)

    def _prepare(self, frames: Frames) -> None:
        """Send all but contents."""
        plan = self.plan
        removals = [*plan.remove_files, *(path + b"/" for path in plan.remove_folders)]
        for names in _batches(removals):
            frames.send(b"x", b"\0".join(names))
        for entries in _batches(plan.folders):
            frames.send(b"f", b"".join(entries))
        touched = [_whole(folder, one) for folder, found in plan.touch.items() for one in found]
        for entries in _batches(touched):
            frames.send(b"t", b"".join(entries))
        self._meter.add(len(touched), 0)

    # -- what is compared by content
    def end(self) -> None:
        """Remember what is there. Raises ``SyncFailed`` when the host has not said that all has come."""
        if self._answers.result is None:
            raise unfinished(self._host.label)
        self._meter.end()
        now = self.plan.there
        if self.out.told:
            changing = Changing(now)
            for (folder, name), found in self.out.told.items():
                if found:
                    changing.put(folder, found)
                else:
                    changing.drop(folder, name)
            now = changing.listing()
        state = self._answers.state
        if self._answers.result == digest(now):
            self._memory.remember(Remembered(now, state.grain, state.modes, state.cases))
        else:
            self._memory.forget()


def _is_quick(plan: Plan) -> bool:
    """Tell whether so little changed that it may be sent on the chance of it."""
    size = sum(map(len, plan.remove_files)) + sum(map(len, plan.remove_folders)) + sum(map(len, plan.folders))
    for found in (*plan.send.values(), *plan.alike.values(), *plan.touch.values()):
        for one in found:
            size += ROW.unpack_from(one)[2] + len(one)
    return size <= SPECULATIVE


def _batches(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """In portions of about a mebibyte."""
    batch: list[bytes] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item) + 1
        if size > PACK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _whole(folder: bytes, one: bytes) -> bytes:
    """A row with its whole path for a name."""
    [(name, mode, size, mtime_ns, target)] = rows(one)
    return row(join(folder, name), mode, size, mtime_ns, target)
