"""The on-host program from here: install it, start jobs, follow them, move files.

``host.sh`` lives in ``~/.gpucloud/TOKEN`` of the login user; each method is one command over a connection.
"""

from __future__ import annotations

import copy
import io
import shlex
import string
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final, Self

from gpucloud.errors import HostBusy, HostUnreachable, RemoteError, SyncFailed
from gpucloud.model import JobState
from gpucloud.quantities import printable
from gpucloud.remote.connection import Completed, Connection
from gpucloud.remote.streams import CHUNK, Collected, Reader, Tail, Writer, drain, too_much

BUSY: Final = 75
"""The status with which the on-host program says that the machine is taken."""

EXITS: Final = 128
"""The highest status of what ended by itself; above it shells tell of a signal, as does ``KILLED``."""

ANSWER_BYTES: Final = 1 << 20
"""What a host tells of itself is shorter."""

BEGIN: Final = b"\x1egpucloud\x1e"
"""What our side of a command's output begins with; before it, login scripts may have printed anything."""

NO_AGENT: Final = 99
"""The status with which a host says that it has no Python for our helper."""

GREETING_LIMIT: Final = 1 << 20
"""Bytes that login scripts may print at most."""

_BOOTSTRAP: Final = """\
import sys
if sys.version_info < (3, 7): sys.exit(99)
try: import zlib
except ImportError: sys.exit(99)
take = sys.stdin.buffer
exec(zlib.decompress(take.read(int(take.readline()))))
"""

_PLAIN: Final = frozenset((string.ascii_letters + string.digits + " ./_-=,:;").encode())
_STATES: Final = frozenset({"unknown", "going", "ended", "lost"})
_USES: Final = frozenset({"job", "ssh", "gpu", "start", "none"})
_SEEN: Final = {"known": True, "unknown": False}
_ENDS: Final = {"none": None, "lease": "lease", "idle": "idle"}


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the host knows of its limits and of its use.

    ``lease_left_s`` and ``idle_limit_s`` are ``None`` without a limit. ``idle_for_s`` counts since it was
    last busy or the limit was set. ``busy`` is what keeps it so now: ``job``, ``ssh``, ``gpu``, ``start``
    when it has only just begun to look, or ``none``. Where ``sessions_known`` is false SSH sessions cannot
    be seen, and the host does not end for idleness by itself. ``over`` is why it is to end: ``lease``,
    ``idle`` or ``None``.
    """

    lease_left_s: int | None
    idle_limit_s: int | None
    idle_for_s: int
    busy: str
    sessions_known: bool
    over: str | None
    jobs: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What the host knows of a job. ``known`` is false when it never heard of it.

    ``phase`` is ``setup`` or ``run``; ``log_bytes`` is how far the log goes now.
    """

    known: bool
    over: bool = False
    lost: bool = False
    phase: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    log_bytes: int = 0
    cancelled: bool = False
    noticed: bool = False
    expired: bool = False

    @property
    def state(self) -> JobState:
        """Our word for it."""
        if not self.over:
            return JobState.SETTING_UP if self.phase == "setup" else JobState.RUNNING
        if self.noticed or self.lost:
            return JobState.INTERRUPTED
        if self.cancelled or self.expired:
            return JobState.CANCELLED
        return JobState.SUCCEEDED if self.exit_code == 0 else JobState.FAILED


class Host:
    """The on-host program of one instance.

    Raises:
        HostUnreachable: from every method, when the connection is lost, or the program was killed there, as
            happens on a machine that is ending.
        RemoteError: from every method, when whoever logs in there cannot run commands.
    """

    def __init__(self, connection: Connection, token: str) -> None:
        self.connection = connection
        self.label = connection.endpoint.label
        self.token = token
        self._home = f'"$HOME/.gpucloud/{token}"'

    def extra(self, lane: int) -> Self:
        """The same host over a connection of its own, which whoever asks for it closes."""
        other = copy.copy(self)
        other.connection = self.connection.extra(lane)
        return other

    def install(self, *, slots: int, claim: str, notice_probe: str, at_end: str) -> None:
        """Bring the program over and take the machine; doing it again does no harm.

        Raises:
            HostBusy: when all ``slots`` of a shared machine are taken.
            RemoteError: when the program cannot work there.
        """
        program = files("gpucloud.remote").joinpath("host.sh").read_bytes()
        arguments = shlex.join(["init", str(slots), claim, notice_probe, at_end])
        done = self._sh(
            f'umask 077; r={self._home}; mkdir -p "$r" && cat >"$r/host.sh.new" && mv -f "$r/host.sh.new" '
            f'"$r/host.sh" && exec sh "$r/host.sh" {arguments}',
            stdin=program,
        )
        if done.status == BUSY:
            raise HostBusy(
                f"{self.label} is in use", why=_text(done), hint="gpucloud ps, or wait until it is free"
            )
        self._checked(done, "the on-host program could not be installed")

    def start(self, job_id: str, scripts: Mapping[str, str]) -> JobStatus:
        """Start a job from its ``run``, ``env`` and maybe ``setup``; a second start of it does nothing."""
        done = self._host("start", job_id, stdin=_tar(scripts))
        return self._status(job_id, self._checked(done, f"job {job_id} could not be started"))

    def status(self, job_id: str) -> JobStatus:
        """What the host knows of a job."""
        done = self._host("status", job_id)
        return self._status(job_id, self._checked(done, f"job {job_id} could not be asked for"))

    def follow(self, job_id: str, offset: int, sink: Callable[[bytes], object]) -> None:
        """Hand each piece of the log from ``offset`` on to ``sink`` as it is written, until the job is over.

        The end of the log may be missing; ``read`` gets it.
        """
        done = self._host("follow", job_id, str(offset), stdout=sink)
        self._checked(done, f"the log of {job_id} could not be followed")

    def read(self, job_id: str, offset: int, sink: Callable[[bytes], object]) -> None:
        """Hand the log from ``offset`` on, as far as it goes, to ``sink``."""
        done = self._host("read", job_id, str(offset), stdout=sink)
        self._checked(done, f"the log of {job_id} could not be read")

    def times(self, job_id: str) -> bytes:
        """Lines of a time in seconds since the epoch and how long the log was then; the last is of now."""
        done = self._host("times", job_id)
        return self._checked(done, f"the times of the log of {job_id} could not be read").stdout

    def last(self, job_id: str, lines: int) -> tuple[int, int]:
        """Where the last lines of the log begin, and how many there are, as there may be fewer."""
        done = self._checked(self._host("last", job_id, str(lines)), f"the log of {job_id} could not be read")
        begin, found = self._numbers(done, f"the log of {job_id}", 2)
        return begin, found

    def since(self, job_id: str, seconds: int) -> int:
        """Where that begins which was written to the log within the last so many seconds, from a line on."""
        done = self._checked(
            self._host("since", job_id, str(seconds)), f"the log of {job_id} could not be read"
        )
        return self._numbers(done, f"the log of {job_id}", 1)[0]

    def cancel(self, job_id: str, grace_s: int) -> JobStatus:
        """End a job: SIGTERM to all of it, SIGKILL to what is left after ``grace_s`` seconds."""
        done = self._host("cancel", job_id, str(grace_s))
        return self._status(job_id, self._checked(done, f"job {job_id} could not be cancelled"))

    def lease(self, seconds: int | None) -> None:
        """Let everything on the host end in so many seconds from now; ``None`` takes the limit away."""
        done = self._host("lease", "none" if seconds is None else str(seconds))
        self._checked(done, "the lease could not be set")

    def idle(self, seconds: int | None) -> None:
        """Let the machine end when it has been idle for so many seconds from now on; ``None``: never."""
        done = self._host("idle", "none" if seconds is None else str(seconds))
        self._checked(done, "the idle limit could not be set")

    def vitals(self) -> Vitals:
        """What the host knows of its limits and of its use; to ask does not count as use.

        Raises:
            RemoteError: when nothing enforces the limits there any more, as after a restart.
        """
        done = self._checked(self._host("vitals"), "the limits could not be asked for")
        try:
            return _parse_vitals(done.stdout)
        except (ValueError, KeyError) as error:
            raise self._nonsense("its limits", done) from error

    def check(self, script: bytes, *words: str) -> bytes:
        """What a script of its own prints that is run there from its stdin; leaves nothing behind."""
        done = self._sh(f"exec sh -s -- {shlex.join(words)}", stdin=script)
        return self._checked(done, "the hardware could not be checked").stdout

    def answer(self, script: str, program: bytes, *, failing: str) -> bytes:
        """What shell text prints that reads ``program`` from its stdin; our folder there is ``$r``.

        Raises:
            RemoteError: when it fails, which leads to the sentence ``failing``, or prints without an end.
        """
        out = bytearray()

        def take(data: bytes) -> None:
            out.extend(data)
            if len(out) > ANSWER_BYTES:
                raise RemoteError(f"{failing} on {self.label}", why="its answer does not end", hint="")

        done = self._sh(f"umask 077; r={self._home}; {script}", stdin=program, stdout=take)
        self._checked(done, failing)
        return bytes(out)

    def clean(self) -> None:
        """End every job and remove our folder."""
        done = self._sh(f'h={self._home}/host.sh; [ ! -f "$h" ] || exec sh "$h" clean')
        self._checked(done, f"{self.label} could not be cleaned up")

    def sent(self, key: str) -> bytes:
        """What ``keep`` stored under ``key`` after the last complete push."""
        done = self._host("sent", key)
        return self._checked(done, "the host could not be asked what it has", SyncFailed).stdout

    def remove(self, target: str, names: Iterable[str]) -> None:
        """Delete below ``target`` these files, and these folders (names that end in ``/``) when empty.

        Nothing is deleted behind a symbolic link, which a job may have put in the place of a folder.
        """
        done = self._host("remove", target, stdin=_nul(names))
        self._checked(done, f"files that vanished here could not be deleted in {target}", SyncFailed)

    def receive(self, target: str, write: Callable[[Writer], object], how: str = "plain") -> None:
        """Unpack the tar that ``write`` writes into ``target``; no file is there before it is complete.

        ``how`` is ``gzip`` when it is compressed, ``folders`` when it only gives folders their permissions.
        """
        done = self._host("receive", target, how, stdin=write)
        self._checked(done, f"files could not be written to {target}", SyncFailed)

    def keep(self, key: str, manifest: bytes) -> set[bytes]:
        """Mark the push under ``key`` as complete; tells which of ``gzip`` and ``python`` the host has."""
        done = self._host("keep", key, stdin=manifest)
        return set(self._checked(done, "the push could not be completed", SyncFailed).stdout.split())

    def files(self, names: Sequence[str]) -> list[str]:
        """Every file and symbolic link at or below these names of the working directory."""
        # find would take what begins with a dash for one of its own words.
        roots = [f"./{name}" if name.startswith("-") else name for name in names]
        done = self._checked(self._host("files", *roots), "the outputs could not be listed", SyncFailed)
        return [name.decode("utf-8", "surrogateescape") for name in done.stdout.split(b"\0") if name]

    def digest(self, names: Sequence[str], target: str = "work") -> dict[str, str]:
        """For each name below ``target`` its sha256 in hex, ``link:TARGET``, or ``gone``."""
        done = self._checked(
            self._host("digest", target, stdin=_nul(names)), "the files could not be checksummed", SyncFailed
        )
        # Where a link leads may hold what else would count as the end of a line.
        lines = done.stdout.decode("utf-8", "surrogateescape").split("\n")[:-1]
        if len(lines) != len(names):
            raise SyncFailed(
                f"{self.label} checksummed {len(lines)} of {len(names)} files",
                why=_text(done),
                hint="try again",
            )
        return dict(zip(names, lines, strict=True))

    def pack(self, names: Sequence[str], consume: Callable[[Reader], object]) -> None:
        """Let ``consume`` read a tar of these names; the checksums tell whether it was whole."""
        self._host("pack", stdin=_nul(names), consume=consume)

    def agent(
        self, words: Sequence[str], *, stdin: Callable[[Writer], object], consume: Callable[[Reader], object]
    ) -> bool:
        """Run the helper program that ``stdin`` sends first; ``False`` when there is no Python to run it.

        ``words`` are what it is told; the folder of the on-host program comes before them.
        """
        script = (
            f"umask 022; r={self._home}; p=$(command -v python3) || exit {NO_AGENT}; "
            f'exec "$p" -I -S -c {shlex.quote(_BOOTSTRAP)} "$r" {shlex.join(words)}'
        )
        done = self._sh(script, stdin=stdin, consume=consume)
        if done.status == NO_AGENT:
            return False
        self._checked(done, "files could not be synced", SyncFailed)
        return True

    def _host(
        self,
        *arguments: str,
        stdin: bytes | Callable[[Writer], object] = b"",
        stdout: Callable[[bytes], object] | None = None,
        consume: Callable[[Reader], object] | None = None,
    ) -> Completed:
        script = f"exec sh {self._home}/host.sh {shlex.join(arguments)}"
        return self._sh(script, stdin=stdin, stdout=stdout, consume=consume)

    def _sh(
        self,
        script: str,
        *,
        stdin: bytes | Callable[[Writer], object] = b"",
        stdout: Callable[[bytes], object] | None = None,
        consume: Callable[[Reader], object] | None = None,
    ) -> Completed:
        out = Collected(self.label)
        complaints = Tail()
        ours: list[_Ours] = []

        def take(output: Reader) -> None:
            ours.append(_Ours(output, self.label))
            if consume:
                consume(ours[0])
            drain(ours[0], stdout or out)

        marked = f"printf '\\036gpucloud\\036'; {script}"
        done = self.connection.run(
            f"exec sh -c {_word(marked)}", stdin=stdin, consume=take, stderr=complaints
        )
        # A login shell that runs nothing says so instead, and not always on stderr.
        done = Completed(done.status, out.whole, complaints.whole or ours[0].unmarked)
        if done.status > EXITS:
            raise HostUnreachable(
                f"{self.label} broke off what it was asked to do",
                why=_text(done),
                hint="gpucloud ps --refresh asks its provider how it is",
            )
        if not ours[0].begun:
            raise RemoteError(
                f"{self.label} does not run commands for {self.connection.endpoint.address.user}",
                why=_text(done),
                hint="let that user have a login shell, or log in as another",
            )
        return done

    def _status(self, job_id: str, done: Completed) -> JobStatus:
        try:
            return _parse_status(done.stdout)
        except (ValueError, KeyError, OverflowError, OSError) as error:
            raise self._nonsense(f"job {job_id}", done) from error

    def _numbers(self, done: Completed, subject: str, count: int) -> list[int]:
        words = done.stdout.split()
        if len(words) != count or not all(word.isdigit() for word in words):
            raise self._nonsense(subject, done)
        return [int(word) for word in words]

    def _nonsense(self, subject: str, done: Completed) -> RemoteError:
        return RemoteError(
            f"{self.label} tells of {subject} what makes no sense",
            why=repr(done.stdout[:200]),
            hint="gpucloud ssh, to look there",
        )

    def _checked(self, done: Completed, message: str, failure: type[RemoteError] = RemoteError) -> Completed:
        if done.status != 0:
            raise failure(f"{message} on {self.label}", why=_text(done), hint="gpucloud ssh, to look there")
        return done


class _Ours:
    """The output of a command from ``BEGIN`` on; ``unmarked`` is all of it when that never comes."""

    def __init__(self, output: Reader, label: str) -> None:
        self._output = output
        self.begun = False
        self._held = b""
        self._label = label

    @property
    def unmarked(self) -> bytes:
        return b"" if self.begun else self._held

    def read(self, size: int = CHUNK, /) -> bytes:
        while not self.begun:
            data = self._output.read(size)
            if not data:
                return b""
            _, mark, rest = (self._held + data).partition(BEGIN)
            self.begun, self._held = bool(mark), rest if mark else self._held + data
            if not mark and len(self._held) > GREETING_LIMIT:
                raise too_much(self._label)
        if not self._held:
            return self._output.read(size)
        data, self._held = self._held[:size], self._held[size:]
        return data


def _word(script: str) -> str:
    """``script`` as one word that POSIX, C and fish shells read alike.

    Quoted they differ on backslashes, exclamation marks and newlines, so all that is unusual is in octal.
    """
    octal = (chr(b) if b in _PLAIN else "%%" if b == ord("%") else f"\\{b:03o}" for b in _bytes(script))
    return f"""'eval "$(printf "{"".join(octal)}")"'"""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(done: Completed) -> str:
    lines = [printable(line) for line in done.stderr.decode("utf-8", "replace").strip().splitlines()]
    return (
        "; ".join(line.removeprefix("gpucloud: ") for line in lines[-3:])
        or f"it ended with status {done.status}"
    )


def _nul(names: Iterable[str]) -> bytes:
    return b"".join(_bytes(name) + b"\0" for name in names)


def _tar(scripts: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, text in scripts.items():
            content = _bytes(text)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _facts(report: bytes) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in report.decode().splitlines())


def _parse_vitals(report: bytes) -> Vitals:
    facts = _facts(report)
    if facts["busy"] not in _USES:
        raise ValueError(facts["busy"])
    return Vitals(
        lease_left_s=_seconds(facts["lease_left"]),
        idle_limit_s=_seconds(facts["idle_limit"]),
        idle_for_s=int(facts["idle_for"]),
        busy=facts["busy"],
        sessions_known=_SEEN[facts["sessions"]],
        over=_ENDS[facts["over"]],
        jobs=int(facts["jobs"]),
    )


def _seconds(limit: str) -> int | None:
    return None if limit == "none" else int(limit)


def _parse_status(report: bytes) -> JobStatus:
    facts = _facts(report)
    state = facts["state"]
    if state not in _STATES:
        raise ValueError(state)
    return JobStatus(
        known=state != "unknown",
        over=state in {"ended", "lost"},
        lost=state == "lost",
        phase=facts.get("phase", ""),
        exit_code=int(facts["exit"]) if state == "ended" else None,
        started_at=_moment(facts.get("started")),
        ended_at=_moment(facts.get("ended")),
        log_bytes=int(facts.get("bytes") or 0),
        cancelled="cancelled" in facts,
        noticed="notice" in facts,
        expired="expired" in facts,
    )


def _moment(seconds: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None
