"""What the modules log goes to stderr, without secrets."""

from __future__ import annotations

import logging
from typing import Final

from gpucloud.redact import scrub

LINE: Final = "%(relativeCreated)6d ms %(name)s: %(message)s"


class Scrubbed(logging.Formatter):
    """Makes lines in which no secret is left, nor in the traceback below them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return scrub(super().format(record))


def warnings() -> None:
    """Write warnings alone, as Python does by itself where nothing was set up."""
    if logging.lastResort:
        logging.lastResort.setFormatter(Scrubbed())


def all_there_is() -> None:
    """Write everything, for ``--debug``."""
    handler = logging.StreamHandler()
    handler.setFormatter(Scrubbed(LINE))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("gpucloud").setLevel(logging.DEBUG)
