"""Jupyter on a machine: started there once, found again, and ended when it is told to."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

from gpucloud.errors import RemoteError, SetupFailed
from gpucloud.remote.host import Host

_TOKEN: Final = re.compile("[0-9a-f]{32,64}")
_KINDS: Final = frozenset({"lab", "notebook"})

# Jupyter may be in a virtual environment of the project, where pip --user puts it, in Conda as images have
# it, or where only a login shell looks.
_FIND: Final = """
d=$r/notebook
[ -d "$r/work" ] && mkdir -p "$d" && cat >"$d/keeper.py.$$" && mv -f "$d/keeper.py.$$" "$d/keeper.py" || exit
PATH=$r/work/.venv/bin:$PATH:$HOME/.local/bin:/opt/conda/bin:$HOME/miniconda3/bin
if ! command -v jupyter-lab >/dev/null && ! command -v jupyter-notebook >/dev/null; then
  PATH=$PATH:$("${SHELL:-/bin/sh}" -lc 'echo; echo "$PATH"' </dev/null 2>/dev/null | tail -n 1)
fi
export PATH
command -v python3 >/dev/null || { echo '{"state": "missing", "managed": false}'; exit 0; }
exec python3 "$d/keeper.py" """


@dataclass(frozen=True, slots=True)
class Notebook:
    """A server on a machine: ``port`` is of the machine; ``kind`` is ``lab`` or ``notebook``.

    ``reused``: it was there already. The token lets in whoever has it.
    """

    port: int
    token: str = field(repr=False)
    kind: str
    reused: bool

    @property
    def path(self) -> str:
        """What of its address comes after host and port."""
        return f"/?token={self.token}"


def start(host: Host) -> Notebook:
    """Start a server, or find the one that runs. It goes on without us, and ends with the machine.

    Raises:
        SetupFailed: when there is no Jupyter, or it does not start.
        RemoteError: when the host tells what makes no sense.
    """
    answer = _ask(host, "start")
    if answer["state"] == "missing":
        raise _missing(host, managed=bool(answer.get("managed")))
    if answer["state"] == "failed":
        raise _failed(host, "start", answer)
    try:
        notebook = Notebook(int(answer["port"]), answer["token"], answer["kind"], answer["reused"] is True)
    except (KeyError, ValueError, TypeError) as error:
        raise _nonsense(host, answer) from error
    token = notebook.token
    sane = 0 < notebook.port < 65536 and isinstance(token, str) and _TOKEN.fullmatch(token)
    if not sane or notebook.kind not in _KINDS:
        raise _nonsense(host, answer)
    return notebook


def stop(host: Host) -> bool:
    """End the server; ``False`` when there was none. Raises as ``start``."""
    answer = _ask(host, "stop")
    if answer["state"] == "failed":
        raise _failed(host, "stop", answer)
    return bool(answer["state"] == "stopped")


def _ask(host: Host, what: str) -> dict[str, Any]:
    program = files("gpucloud.remote").joinpath("notebook_keeper.py").read_bytes()
    said = host.answer(_FIND + what, program, failing="Jupyter could not be looked after")
    try:
        answer = json.loads(said)
    except ValueError:
        answer = said
    if not isinstance(answer, dict) or "state" not in answer:
        raise _nonsense(host, answer)
    return answer


def _failed(host: Host, what: str, answer: dict[str, Any]) -> SetupFailed:
    return SetupFailed(
        f"Jupyter did not {what} on {host.label}",
        why=_plain(str(answer.get("why"))),
        hint=f"gpucloud exec {host.label} -- cat ../notebook/log",
    )


def _missing(host: Host, *, managed: bool) -> SetupFailed:
    # Where the system's packages are not to be touched, pip does nothing for a user either.
    own = "'python3 -m venv .venv && .venv/bin/pip install jupyterlab'"
    how = own if managed else "pip install --user jupyterlab"
    return SetupFailed(
        f"{host.label} has no Jupyter",
        why="there is neither jupyter-lab nor jupyter-notebook where a login shell, pip or Conda has them",
        hint=f"gpucloud exec {host.label} -- {how}",
    )


def _nonsense(host: Host, answer: object) -> RemoteError:
    return RemoteError(
        f"{host.label} tells of Jupyter what makes no sense",
        why=repr(answer)[:200],
        hint="gpucloud ssh, to look there",
    )


def _plain(text: str) -> str:
    """What a host says, fit to be shown."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:600])
