"""The files in which the vendors' own tools keep their keys."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gpucloud.provider import FileFormat, VendorFile

log = logging.getLogger(__name__)

TOP: Final = "gpucloud"
"""The section that the lines of an INI file before its first section are read as."""


def path_of(path: str, environ: Mapping[str, str]) -> Path:
    """Where a file below home lies, such as ``~/.acme/config.toml``."""
    below_config = path.removeprefix("~/.config/")
    if below_config != path and environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"], below_config)
    return Path(environ.get("HOME") or Path.home(), path.removeprefix("~/"))


def read(path: Path, theirs: VendorFile) -> str | None:
    """What a vendor's tool has stored; of a file that it has not, or that makes no sense, nothing."""
    try:
        if not path.is_file():
            return None
        value = _pick(path.read_text("utf-8"), theirs)
    except (OSError, ValueError, RecursionError) as error:
        # Only its kind: what a parser says quotes the file.
        log.debug("%s is passed over: %s", path, type(error).__name__)
        return None
    return value.strip() if isinstance(value, str) else None


def _pick(text: str, theirs: VendorFile) -> object:
    """One value out of the text of a file. Raises ``ValueError``."""
    if theirs.format is FileFormat.PLAIN:
        return text
    if theirs.format is FileFormat.INI:
        return _pick_ini(text, theirs.key)
    if theirs.format is FileFormat.JSON:
        import json

        found = json.loads(text)
    else:
        found = tomllib.loads(text)
    for part in theirs.key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _pick_ini(text: str, key: str) -> str | None:
    import configparser

    section, _, option = key.rpartition(".")
    parser = configparser.RawConfigParser(strict=False)
    try:
        # Some have no section, or lines before the first, which the parser does not know.
        parser.read_string(f"[{TOP}]\n{text}")
    except configparser.Error:
        raise ValueError("not INI") from None
    return parser.get(section or TOP, option, fallback=None)
