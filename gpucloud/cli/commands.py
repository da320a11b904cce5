"""All commands, and in which module each is; only that of the command that was typed is imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from typing import Final

from gpucloud.cli.app import app

HOMES: Final = {
    "offers": "offers",
    "history": "history",
    "watch": "watch",
    "gpus": "gpus",
    "suggest": "gpus",
    "why": "why",
    "explain": "explain",
    "launch": "launch",
    "reserve": "reserve",
    "reservations": "reserve",
    "plan": "plan",
    "apply": "plan",
    "run": "run",
    "ssh": "access",
    "exec": "exec",
    "forward": "tunnels",
    "notebook": "tunnels",
    "check": "check",
    "push": "files",
    "pull": "files",
    "jobs": "jobs",
    "logs": "logs",
    "cancel": "jobs",
    "ps": "clusters",
    "budget": "budget",
    "stop": "stop",
    "start": "stop",
    "extend": "leases",
    "down": "clusters",
    "reap": "leases",
    "cost": "cost",
    "fsck": "fsck",
    "providers": "providers",
    "login": "login",
    "logout": "login",
    "catalog": "catalog",
    "config": "config",
    "demo": "demo",
    "completion": "completion",
}
"""The module below ``gpucloud.cli`` of each command, in the order of a first day, which help has too."""

__all__ = ["HOMES", "app", "load"]


def load(words: Sequence[str] = ()) -> None:
    """Register the command that these words call, or all when that is not sure."""
    before = list(takewhile(lambda word: word.startswith("-"), words))
    name = words[len(before)] if len(before) < len(words) else ""
    one = name in HOMES and not {"-h", "--help"} & set(before)
    none = not name and "--version" in before
    for module in dict.fromkeys([HOMES[name]] if one else [] if none else HOMES.values()):
        import_module(f"gpucloud.cli.{module}")
