"""What vendors say when they refuse, as data: their words, and which error of ours each is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gpucloud.errors import ProviderError

REFUSED: Final = 400
"""The least status of HTTP that is no success."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way of saying no. ``words`` is a pattern that is looked for in the vendor's text, in any case.

    ``code`` is the vendor's own, whole, and ``statuses`` are those of HTTP; what is empty is not looked at.
    ``message`` says what happened, after the provider's name.
    """

    kind: type[ProviderError]
    message: str
    words: str = ""
    code: str = ""
    statuses: tuple[int, ...] = ()
    hint: str = ""

    def matches(self, status: int, code: str, text: str) -> bool:
        """Whether it is this one."""
        return (
            (not self.statuses or status in self.statuses)
            and (not self.code or code == self.code)
            and re.search(self.words, text, re.IGNORECASE) is not None
            # Success is a refusal only where a vendor is known to say so.
            and (status >= REFUSED or status in self.statuses)
        )
