"""GPU tools for machines without a GPU: programs that print what is in ``tests/fixtures/smi``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

FIXTURES: Final = Path(__file__).resolve().parents[1] / "fixtures" / "smi"

# Columns by their names, as nvidia-smi does; a column that is not there is a field that it does not know.
_QUERY: Final = r"""
BEGIN { FS = ", *"; wanted = split(fields, want, ",") }
NR == 1 {
  for (n = 1; n <= NF; n++) at[$n] = n
  for (n = 1; n <= wanted; n++)
    if (!(want[n] in at)) { printf "Field \"%s\" is not a valid field to query.\n\n", want[n]; exit 2 }
  next
}
{ line = $at[want[1]]; for (n = 2; n <= wanted; n++) line = line ", " $at[want[n]]; print line }
"""


def nvidia_smi(bin_folder: Path, machine: str) -> None:
    """Put a ``nvidia-smi`` into a folder that answers queries as ``machine`` does."""
    query = bin_folder / "query.awk"
    query.write_text(_QUERY)
    _program(
        bin_folder / "nvidia-smi",
        'case ${1:-} in --query-gpu=*) exec awk -v "fields=${1#*=}" -f '
        f"'{query}' '{FIXTURES / machine}.csv' ;; *) exec cat '{FIXTURES / machine}.txt' ;; esac",
    )


def printing(bin_folder: Path, tool: str, fixture: str, status: int = 0) -> None:
    """Put a tool into a folder that prints a fixture, whatever it is asked, and ends with ``status``."""
    _program(bin_folder / tool, f"cat '{FIXTURES / fixture}'; exit {status}")


def hanging(bin_folder: Path, tool: str) -> None:
    """Put a tool into a folder that never ends, and notes its process beside it."""
    _program(bin_folder / tool, 'echo $$ >"$0.pid"; sleep 1000 & echo $! >>"$0.pid"; wait')


def _program(file: Path, script: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    file.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    file.chmod(0o755)


def report(sections: Mapping[str, tuple[int, str]] | Iterable[tuple[str, tuple[int, str]]]) -> bytes:
    """What ``check.sh`` prints when its tools have these statuses and print these texts."""
    pairs = sections.items() if isinstance(sections, Mapping) else sections
    lines = ["#gpucloud-check 1"]
    for name, (status, text) in pairs:
        lines += [f"#{name} {status}", *(f" {line}" for line in text.split("\n"))]
    return "\n".join([*lines, "#end 0", ""]).encode()


def nvidia_report(machine: str, **others: tuple[int, str]) -> bytes:
    """What ``check.sh`` prints on a machine of the fixtures; ``others`` are more sections."""
    header, rows = (FIXTURES / f"{machine}.csv").read_text().split("\n", 1)
    return report(
        {
            "nvidia-smi.fields": (0, header.replace(" ", "")),
            "nvidia-smi": (0, rows),
            "nvidia-smi.table": (0, (FIXTURES / f"{machine}.txt").read_text()),
            **others,
        }
    )
