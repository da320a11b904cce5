"""Commands that can be ended from here: each tells its number first, and a second command ends all of it.

SSH has a message for that, which many servers ignore, and a command whose connection is closed goes on until
it writes something. Nothing is put on the host for it.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gpucloud.errors import RemoteError

if TYPE_CHECKING:
    from gpucloud.remote.connection import Connection

GRACE_S: Final = 5
"""How long a command that was told to end may take before it is killed."""

_TOLD: Final = re.compile(rb"\x1egpucloud ([1-9][0-9]{0,9})\x1e")
_LONGEST: Final = len(b"\x1egpucloud \x1e") + 10
_FIRST: Final = b"\x1e"

# sshd gives each command a session of its own. Where another server does not, the command makes one, unless
# setsid would have to fork for it, which loses the status. The number stays the same through every exec. No
# further shell is started where none is needed: on many hosts of one machine that would be most of the time.
_LEADER: Final = """\
gpucloud_go='printf "\\036gpucloud %s\\036" "$$" >&2; eval "unset gpucloud_go gpucloud_at; set --; $1"'
if { IFS= read -r gpucloud_at </proc/$$/stat; } 2>/dev/null; then
  set -- "$1" ${gpucloud_at##*) }
  if [ "$4" != "$$" ] && command -v setsid >/dev/null 2>&1; then exec setsid sh -c "$gpucloud_go" sh "$1"; fi
fi
eval "$gpucloud_go"
"""

# PID SECONDS: SIGTERM to a session, SIGKILL to what is left of it after so many seconds. Says what it took.
# Without /proc only the process group can be reached. The dead that nobody collects do not count.
_END: Final = """\
pid=$1 now=0
nap() {
  if read -r now _ </proc/uptime; then
    now=${now%%.*}
    sleep "$1" || sleep 1
  else
    sleep 1
    now=$((now + 1))
  fi
}
each() {
  there=1
  if [ ! -e "/proc/$$/stat" ]; then
    kill "-$1" "-$pid" || kill "-$1" "$pid" || return 1
    return 0
  fi
  for file in /proc/[0-9]*/stat; do
    IFS= read -r line <"$file" || continue
    number=${line%% *}
    set -- "$1" ${line##*) }
    [ "$2" != Z ] && [ "$2" != X ] || continue
    if [ "$4" = "$pid" ]; then
      there=0
    elif [ "$5" = "$pid" ] || [ "$number" = "$pid" ]; then
      there=0
      kill "-$1" "$number"
    fi
  done
  [ "$there" = 1 ] || kill "-$1" "-$pid"
  return "$there"
}
{
  each TERM || { echo none; exit; }
  each CONT
  nap 0.02
  deadline=$((now + $2)) pause=0.1
  while each 0 && [ "$now" -lt "$deadline" ]; do
    nap "$pause"
    # To look takes long where there are many processes.
    [ "$now" -lt $((deadline - $2 + 2)) ] || pause=0.5
  done
  each 0 || { echo term; exit; }
  for try in 1 2 3 4 5 6 7 8 9 10; do
    each KILL || { echo kill; exit; }
    nap 0.1
  done
  echo left
} 2>/dev/null
"""


class Outcome(StrEnum):
    """What it took to end a command: nothing, SIGTERM or SIGKILL; or some of it is left."""

    NONE = "none"
    TERM = "term"
    KILL = "kill"
    LEFT = "left"


def endable(command: str) -> str:
    """Shell text that runs ``command`` so that ``Running`` can end it; the status is the command's own."""
    return f"exec sh -c {shlex.quote(_LEADER)} sh {shlex.quote(command)}"


class Running:
    """A command made by ``endable`` that goes on: takes its standard error, and ends it.

    ``take`` is the sink of its standard error; what it says of itself does not reach ``stderr``.
    """

    def __init__(self, stderr: Callable[[bytes], object]) -> None:
        self._stderr = stderr
        self._held = b""
        self._pid: int | None = None
        self._told = threading.Event()

    def take(self, data: bytes) -> None:
        """Look for the number of the command; all before and after it is passed on as it comes."""
        if self._pid is not None:
            self._stderr(data)
            return
        data = self._held + data
        found = _TOLD.search(data)
        if found:
            self._pid, self._held = int(found[1]), b""
            self._told.set()
            data = data[: found.start()] + data[found.end() :]
        else:
            # Login scripts may have printed anything before it, and it may come in two pieces.
            start = data.find(_FIRST, max(0, len(data) - _LONGEST))
            cut = len(data) if start < 0 else start
            data, self._held = data[:cut], data[cut:]
        if data:
            self._stderr(data)

    def close(self) -> None:
        """The command is over: pass on what was held back."""
        self._told.set()
        if self._held:
            self._stderr(self._held)
            self._held = b""

    def end(self, connection: Connection, *, wait_s: float) -> Outcome:
        """End the command and all that it has started and that has not left its session.

        Waits at most ``wait_s`` seconds for a command that has only just been started to tell its number.

        Raises:
            RemoteError: when it is not known to have ended.
        """
        self._told.wait(wait_s)
        if self._pid is None:
            raise RemoteError(
                f"a command on {connection.endpoint.label} cannot be ended",
                why="the host has not told its number",
                hint="gpucloud ssh shows what runs there",
            )
        ending = f"exec sh -c {shlex.quote(_END)} sh {self._pid} {GRACE_S}"
        said = connection.run(ending).stdout.split()
        try:
            return Outcome(said[-1].decode("ascii", "replace"))
        except (IndexError, ValueError) as error:
            raise RemoteError(
                f"a command on {connection.endpoint.label} may not have ended",
                why="the host has not said how it went",
                hint="gpucloud ssh shows what runs there",
            ) from error
