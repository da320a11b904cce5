"""What the fakes of all rental markets have in common: machines that come and go, refusals, lag, the wires.

A fake is a subclass whose methods answer calls, each marked with ``answers``. It tells the vendor's words;
what is true there, and what a test wants to be true, is kept here.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import unquote

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from gpucloud.model import SshAddress, utcnow
from gpucloud.provider import ProviderSettings
from tests.harness.acme.faults import Verb
from tests.harness.faulty import Faulty
from tests.harness.rental.document import Deviation, document, sent_path
from tests.harness.rig import Rig

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY: Final = "key-of-the-tests"
ADDRESS: Final = "203.0.113.5"
REPLIES: Final = Path(__file__).resolve().parents[2] / "fixtures" / "replies"
TOKEN: Final = re.compile(r"gc-[a-z0-9]{20}")

Answer = Callable[..., Any]
F = TypeVar("F", bound=Answer)


def replies(name: str) -> Any:
    """A reply of a vendor, trimmed by hand: ``runpod/gpus.json``."""
    return json.loads((REPLIES / name).read_text())


class Refused(Exception):
    """An answer that is no: a status and the vendor's body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def answers(method: str, path: str, verb: Verb | None = None) -> Callable[[F], F]:
    """Let a method answer ``GET /v1/instances/<id>``, with what is in brackets as arguments.

    ``verb`` says what the call is for, so that faults can strike it. The method returns a body, or a status
    and a body, or a ``Response``.
    """

    def marked(method_of_fake: F) -> F:
        pattern = re.sub("<[a-z_]+>", "([^/]+)", path)
        routes: list[tuple[str, str, Verb | None]] = getattr(method_of_fake, "routes", [])
        method_of_fake.routes = [*routes, (method, f"{pattern}/?", verb)]  # type: ignore[attr-defined]
        return method_of_fake

    return marked


@dataclass(frozen=True, slots=True)
class Boot:
    """What a machine is told at its birth: the keys that may log in, and user data or a start script."""

    id: str
    keys: tuple[str, ...]
    user_data: str = ""


@dataclass(slots=True)
class Thing:
    """A machine, or something beside one (``kind``: volume, address, script, key).

    ``asked`` is what it was made by, ``tags`` are ours, ``state`` is the vendor's word. ``bills`` is whether
    it costs while it is there.
    """

    id: str
    kind: str
    state: str
    asked: Mapping[str, Any]
    tags: Mapping[str, str]
    created_at: datetime
    bills: bool = True
    ended_at: datetime | None = None
    address: SshAddress | None = None
    beside: str = ""
    """The machine that something beside one belongs to."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else this vendor keeps of it."""
    hidden_until: int = 0
    """The listing of its kind from which on it is shown."""

    @property
    def token(self) -> str | None:
        """Our token, if it carries one."""
        return self.tags.get("gpucloud-token")

    @property
    def living(self) -> bool:
        """Whether it is there."""
        return self.ended_at is None


MACHINE: Final = "machine"


class Market:
    """One account at one vendor. Subclasses say in whose words it answers."""

    name: ClassVar[str]
    base: ClassVar[str]
    """The address that the vendor's document tells, up to where its paths begin."""
    spec: ClassVar[str | None] = None
    """The file of that document."""
    strict: ClassVar[bool] = True
    """Whether fields that the document does not name are faults."""
    deviations: ClassVar[tuple[Deviation, ...]] = ()
    refusal_type: ClassVar[str] = "application/json"
    """The media type of what is refused."""
    states: ClassVar[tuple[str, ...]]
    """What a machine is called from its birth until it runs; with each look at it goes on by one."""
    credentials: ClassVar[Mapping[str, str]] = {"api_key": KEY}
    """What the adapter's settings have to have."""
    gpu: ClassVar[str] = "H100:8"
    """What tests rent here."""
    gpus: ClassVar[str] = "h100-sxm-8"
    """The machine of the fixtures that it is."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.full: set[str] = set()
        """Instance types of which none is left although they are listed."""
        self.lag = 0
        """From how many listings a new machine is missing."""
        self.on_boot: Callable[[Boot], SshAddress | None] = lambda boot: SshAddress(ADDRESS)
        self.on_end: Callable[[str], None] = lambda id: None
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.judged = 0
        """How many calls the document has judged."""
        self.excused: set[Deviation] = set()
        self._refusals: list[tuple[Verb, Refused]] = []
        self._listings: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    # -- the truth, for tests ------------------------------------------------------------------------

    def instances(self) -> list[Thing]:
        """Every machine that was ever made."""
        with self._lock:
            return [thing for thing in self.things.values() if thing.kind == MACHINE]

    def beside(self) -> list[Thing]:
        """Everything else that is there."""
        with self._lock:
            return [thing for thing in self.things.values() if thing.kind != MACHINE and thing.living]

    def billing(self) -> list[str]:
        """The ids of what bills now."""
        with self._lock:
            return [thing.id for thing in self.things.values() if thing.living and thing.bills]

    def refuse(self, verb: Verb, status: int, body: Any, times: int = 1) -> None:
        """Answer the next requests for a verb so; of those nothing is done."""
        with self._lock:
            self._refusals += [(verb, Refused(status, body))] * times

    def asked(self, method: str, path: str) -> list[Any]:
        """The bodies, decoded, of all requests to a path, which may be a pattern."""
        with self._lock:
            matching = [r for r in self.requests if r.method == method and re.fullmatch(path, r.path)]
        return [json.loads(request.data) if request.data else None for request in matching]

    def end(self, id: str) -> None:
        """Let something be gone, and with a machine what was made to end with it."""
        with self._lock:
            thing = self.things[id]
            if thing.living:
                thing.ended_at = self.now()
                if thing.kind == MACHINE:
                    self.on_end(id)

    # -- for the fakes -------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The vendor's time of day."""
        return utcnow()

    def authorised(self, request: Request) -> bool:
        """Whether the credentials are those of the account."""
        return request.headers.get("Authorization") == f"Bearer {KEY}"

    def unauthorised(self) -> Refused:
        """How the vendor refuses wrong credentials."""
        return Refused(401, {"error": "unauthorized"})

    def new_id(self) -> str:
        """An id as the vendor makes them."""
        return f"{self.name}-{next(self._numbers)}"

    def make(self, boot: Boot, asked: Mapping[str, Any], tags: Mapping[str, str], **more: Any) -> Thing:
        """Let a machine be born; it runs after as many looks as there are states before that."""
        thing = Thing(boot.id, MACHINE, self.states[0], asked, dict(tags), self.now(), more=more)
        thing.hidden_until = self._listings.get(MACHINE, 0) + self.lag
        thing.address = self.on_boot(boot)
        self.things[thing.id] = thing
        return thing

    def put(self, kind: str, tags: Mapping[str, str], *, bills: bool = True, **more: Any) -> Thing:
        """Let something be there beside machines."""
        thing = Thing(self.new_id(), kind, "", {}, dict(tags), self.now(), bills=bills, more=more)
        self.things[thing.id] = thing
        return thing

    def listed(self) -> list[Thing]:
        """The machines that a listing of now shows; looking at them lets them go on."""
        self._listings[MACHINE] = number = self._listings.get(MACHINE, 0) + 1
        shown = [
            t for t in self.things.values() if t.kind == MACHINE and t.living and t.hidden_until < number
        ]
        return [self.looked_at(thing) for thing in shown]

    def found(self, id: str, kind: str = MACHINE) -> Thing | None:
        """What is there under an id."""
        thing = self.things.get(id)
        return thing if thing and thing.living and thing.kind == kind else None

    def looked_at(self, thing: Thing) -> Thing:
        """It goes on from one state to the next until it runs."""
        if thing.state in self.states[:-1]:
            thing.state = self.states[self.states.index(thing.state) + 1]
        return thing

    def runs(self, thing: Thing) -> bool:
        """Whether it can be reached."""
        return thing.state == self.states[-1]

    # -- the wires -----------------------------------------------------------------------------------

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request, and have both judged by the document."""
        request = Request(environ)
        request.get_data()
        with self._lock:
            self.requests.append(request)
            response = self._respond(request)
            self._judge(request, response)
        return response(environ, start)

    def verb(self, environ: WSGIEnvironment, content: bytes) -> Verb | None:
        """What a request is for, as far as faults go."""
        found = self._route(environ["REQUEST_METHOD"], sent_path(environ))
        return found[1] if found else None

    def _respond(self, request: Request) -> Response:
        found = self._route(request.method, sent_path(request.environ))
        if found is None:
            self.violations.append(f"nothing answers {request.method} {request.path}")
            return _response(404, {"message": "there is no such page"})
        method, verb, arguments = found
        try:
            if not self.authorised(request):
                raise self.unauthorised()
            self._refuse_if_due(verb)
            told = method(request, *arguments)
        except Refused as refused:
            return _response(refused.status, refused.body, self.refusal_type)
        if isinstance(told, Response):
            return told
        return _response(*told) if isinstance(told, tuple) else _response(200, told)

    def _refuse_if_due(self, verb: Verb | None) -> None:
        for number, (due, refused) in enumerate(self._refusals):
            if due is verb:
                del self._refusals[number]
                raise refused

    @classmethod
    def verbs(cls) -> frozenset[Verb]:
        """What it can be asked for, as far as faults go."""
        told = (getattr(getattr(cls, name), "routes", ()) for name in dir(cls))
        return frozenset(verb for routes in told for _, _, verb in routes if verb)

    def _route(self, method: str, path: str) -> tuple[Answer, Verb | None, tuple[str, ...]] | None:
        for name in dir(type(self)):
            for of_method, pattern, verb in getattr(getattr(type(self), name), "routes", ()):
                match = re.fullmatch(pattern, path) if of_method == method else None
                if match:
                    return getattr(self, name), verb, tuple(map(unquote, match.groups()))
        return None

    def _judge(self, request: Request, response: Response) -> None:
        judge = document(self.spec, self.base, self.strict) if self.spec else None
        if judge is None:
            return
        self.judged += 1
        call = f"{request.method} {request.path}"
        for fault in judge.faults(request, response):
            excuse = next((one for one in self.deviations if one.excuses(call, fault)), None)
            if excuse:
                self.excused.add(excuse)
            else:
                self.violations.append(f"{call} {response.status_code}: {fault}")


def _response(status: int, body: Any, media_type: str = "application/json") -> Response:
    if body is None:
        return Response(status=status)
    if isinstance(body, str):
        return Response(body, status, content_type="text/plain")
    return Response(json.dumps(body), status, content_type=media_type)


class _Quiet(WSGIRequestHandler):
    """Connections of which no line is written for each request."""

    def make_environ(self) -> WSGIEnvironment:
        """Also what is in headers with an underscore in their names, which werkzeug leaves out."""
        named = {key: value for key, value in self.headers.items() if "_" in key}
        return {**super().make_environ(), **{f"HTTP_{key.upper()}": value for key, value in named.items()}}

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


@dataclass(frozen=True, slots=True)
class Served:
    """A market behind a port of loopback, with faults on the way that strike when they are asked to."""

    market: Any
    url: str
    faults: Faulty
    around: Any
    """What a test has put between the market and its faults, or the market itself."""

    def rig(self, **table: Any) -> Rig:
        """The same as tests of all vendors use it; ``table`` are more of the adapter's settings."""
        settings = {**self.market.credentials, "url": self.url, **table}

        def tags(id: str) -> Mapping[str, str]:
            thing = self.market.things.get(id)
            return thing.tags if thing else {}

        sold = {"gpu": self.market.gpu, "gpus": self.market.gpus, "verbs": self.market.verbs()}
        return Rig(self.market.name, self.market, self.faults, settings, {}, tags, **sold)

    def settings(self, folder: Path, **table: Any) -> ProviderSettings:
        """What an adapter is given to rent here."""
        return self.rig(**table).settings(folder)


@contextmanager
def serving(market: Market, around: Callable[[Market], Any] = lambda market: market) -> Iterator[Served]:
    """Serve a market; at the end nothing may have been asked or answered that its document forbids."""
    application = around(market)
    faulty = Faulty(application, market.verb)
    server = make_server("127.0.0.1", 0, faulty, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Served(market, f"http://127.0.0.1:{server.server_port}", faulty, application)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not market.violations, market.violations
