"""What can go wrong between a client and the vendor acme, as rules that are handed to its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verb(StrEnum):
    """What the vendor can be asked."""

    OFFERS = "offers"
    CREATE = "create"
    GET = "get"
    LIST = "list"
    TERMINATE = "terminate"
    STOP = "stop"
    START = "start"
    EXPIRE = "expire"
    LIST_RESOURCES = "list-resources"
    REMOVE = "remove"


class Trouble(StrEnum):
    """What goes wrong. Nothing is done at the vendor by the first seven; the others say what is.

    ``dropped-connection``  it is closed before the request is read
    ``error``               answered 500
    ``html``                answered 502, by the page of some gateway
    ``throttled``           answered 429, with ``Retry-After``
    ``unauthorized``        answered 401
    ``refused``             answered 400, and only the prose says why
    ``not-found``           answered 404, for what is there
    ``lost-reply``          done, and the connection closed without an answer
    ``error-but-done``      done, and answered 500
    ``timeout``             done, and not answered until the client goes away
    ``truncated``           done, and answered with half of the JSON
    ``twice``               two instances are made with the same tags, and the second one is told
    ``lag``                 done, and missing from the next ``listings`` listings
    ``linger``              accepted, but still listed, and billed, in the next ``listings`` listings
    ``left-behind``         create: disk and address are made, the instance is not, answered 500;
                            terminate: the instance ends, its disk and address stay
    """

    DROPPED_CONNECTION = "dropped-connection"
    ERROR = "error"
    HTML = "html"
    THROTTLED = "throttled"
    UNAUTHORIZED = "unauthorized"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    LOST_REPLY = "lost-reply"
    ERROR_BUT_DONE = "error-but-done"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    TWICE = "twice"
    LAG = "lag"
    LINGER = "linger"
    LEFT_BEHIND = "left-behind"


READS: Final = frozenset({Verb.OFFERS, Verb.GET, Verb.LIST, Verb.LIST_RESOURCES})

OF_FEW: Final[Mapping[Trouble, frozenset[Verb]]] = {
    Trouble.NOT_FOUND: frozenset(Verb) - {Verb.OFFERS, Verb.CREATE, Verb.LIST, Verb.LIST_RESOURCES},
    Trouble.TWICE: frozenset({Verb.CREATE}),
    Trouble.LAG: frozenset({Verb.CREATE}),
    Trouble.LINGER: frozenset({Verb.TERMINATE, Verb.REMOVE}),
    Trouble.LEFT_BEHIND: frozenset({Verb.CREATE, Verb.TERMINATE}),
}
"""The troubles that only some verbs can have."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule: of the requests for ``verb``, ``after`` go well and the next ``times`` do not.

    Raises ``ValueError`` for a trouble that the verb cannot have: such a rule would never strike.
    """

    verb: Verb
    trouble: Trouble
    times: int = 1
    after: int = 0
    listings: int = 2

    def __post_init__(self) -> None:
        if self.verb not in OF_FEW.get(self.trouble, frozenset(Verb)):
            raise ValueError(f"{self.verb} cannot have {self.trouble}")

    def __str__(self) -> str:
        return f"{self.verb}-{self.trouble}"


EVERY_FAULT: Final = tuple(
    Fault(verb, trouble)
    for verb in Verb
    for trouble in Trouble
    if verb in OF_FEW.get(trouble, frozenset(Verb))
)
"""Each trouble of each verb, once."""
