"""The script of a simulated market: items separated by commas.

=======================  =====================================================================================
``stockout=2``           the first 2 launches find no stock
``quota=1``              the first launch is refused for want of quota
``boot=5s``              SSH answers 5 s after the launch
``queue=5s``             queued machines are sold too, cheaper; each starts 5 s after its launch
``badhost=1``            the first instance never answers
``wronggpu=1``           the first instance with GPUs has one A10 instead of what was sold
``interrupt@40s``        the first spot instance is taken back 40 s after launch, a second item the second
``interrupt@asked``      the same, but when something on it makes the file ``~/.interrupt``
``notice=3s``            so long before, the interruption is announced on the instance (2 s without this item)
``price*1.2@30s``        from 30 s after the market opened all prices, and running spot, are 1.2 times as much
``throttle=3``           the first 3 requests are answered "too many requests"
``api500=2``             the first 2 requests fail inside the provider
``lost-reply=1``         the first launch succeeds but its answer never arrives
``error-but-created=1``  the first launch is answered with an error although it made the instance
``twice=1``              the first launch makes two instances with one token
``forget=2``             an instance is not found by the first 2 requests for it; the listing shows it
``nolist=2``             the first 2 listings of instances fail
``slow-list=3``          an instance is missing from the first 3 listings after its launch; so is its disk
``terminate500=2``       the first 2 terminates fail inside the provider
``lost-terminate=1``     the first terminate takes effect but its answer never arrives
``stuck=2``              a terminated instance goes on until it was listed 2 more times
``leak=1``               the first instance that is terminated leaves its disk behind
``auth``                 every request is refused for want of credentials
``seed=7``               another set of prices
=======================  =====================================================================================
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, Literal

from gpucloud.errors import ConfigError
from gpucloud.quantities import parse_duration

COUNTS: Final = (
    "stockout",
    "quota",
    "badhost",
    "wronggpu",
    "throttle",
    "api500",
    "lost-reply",
    "error-but-created",
    "twice",
    "forget",
    "nolist",
    "slow-list",
    "terminate500",
    "lost-terminate",
    "stuck",
    "leak",
    "seed",
)
EXAMPLES: Final = {
    "boot": "boot=5s",
    "queue": "queue=5s",
    "notice": "notice=3s",
    "interrupt": "interrupt@40s",
    "price": "price*1.2@30s",
    "auth": "auth",
    **{word: f"{word}=2" for word in COUNTS},
}
"""Every word, as it is written."""


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed script; times in seconds."""

    text: str = ""
    stockout: int = 0
    quota: int = 0
    badhost: int = 0
    wronggpu: int = 0
    throttle: int = 0
    api500: int = 0
    lost_reply: int = 0
    error_but_created: int = 0
    twice: int = 0
    forget: int = 0
    nolist: int = 0
    slow_list: int = 0
    terminate500: int = 0
    lost_terminate: int = 0
    stuck: int = 0
    leak: int = 0
    seed: int = 0
    boot: float = 0
    queue: float | None = None
    notice: float = 2
    interrupts: tuple[float | Literal["asked"], ...] = ()
    prices: tuple[tuple[Decimal, float], ...] = ()
    auth: bool = False


def parse(text: str) -> Script:
    """Read a script. Raises ``ConfigError`` naming the item that makes no sense."""
    script = Script(text)
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            script = _with(script, item)
        except ValueError as error:
            raise _nonsense(item, str(error)) from error
    return script


def _nonsense(item: str, why: str) -> ConfigError:
    word = re.split(r"[=@*]", item)[0].strip()
    close = [word] if word in EXAMPLES else difflib.get_close_matches(word, EXAMPLES, n=1)
    return ConfigError(
        f"sim: the script item {item!r} makes no sense",
        why=why or f"known are {', '.join(sorted(EXAMPLES))}",
        hint=f"did you mean {EXAMPLES[close[0]]}?" if close else "for example sim:stockout=2,boot=5s",
    )


def _with(script: Script, item: str) -> Script:
    if item == "auth":
        return replace(script, auth=True)
    if match := re.fullmatch(r"(boot|notice|queue)=(.+)", item):
        return _set(script, match[1], parse_duration(match[2]).total_seconds())
    if item == "interrupt@asked":
        return replace(script, interrupts=(*script.interrupts, "asked"))
    if match := re.fullmatch(r"interrupt@(.+)", item):
        return replace(script, interrupts=(*script.interrupts, parse_duration(match[1]).total_seconds()))
    if match := re.fullmatch(r"price\*(\d+(?:\.\d+)?)(?:@(.+))?", item):
        since = parse_duration(match[2]).total_seconds() if match[2] else 0.0
        return replace(script, prices=(*script.prices, (Decimal(match[1]), since)))
    if (match := re.fullmatch(r"([a-z0-9-]+)=(\d+)", item)) and match[1] in COUNTS:
        return _set(script, match[1].replace("-", "_"), int(match[2]))
    raise ValueError


def _set(script: Script, name: str, value: Any) -> Script:
    return replace(script, **{name: value})
