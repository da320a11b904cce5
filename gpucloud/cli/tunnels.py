"""``gpucloud forward`` and ``notebook``: ports of a machine as ports of this computer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.nodes import NodeName, find_node
from gpucloud.cli.render import out
from gpucloud.errors import RemoteError

if TYPE_CHECKING:
    from gpucloud.fleet.forward import Bound, Forwarder
    from gpucloud.fleet.link import Link
    from gpucloud.jobs.notebook import Notebook

USUAL_PORT: Final = 8888
"""Where people expect Jupyter."""

Routes = Annotated[
    list[str],
    typer.Argument(help="A port, or a host and port as the machine sees them.", metavar="[LOCAL:]REMOTE..."),
]
Bind = Annotated[str, typer.Option("--bind", help="Listen at this address of this computer.", metavar="ADDR")]


@app.command()
def forward(
    name: NodeName,
    routes: Routes,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser once the first answers.")] = False,
    bind: Bind = "",
) -> None:
    """Lead ports of this computer to ports of a machine until Ctrl-C; a lost connection is made again.

    Example: gpucloud forward train 8888 --open
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.forward import LOOPBACK, Forwarder, addresses_of, parse_route
    from gpucloud.fleet.link import Link

    wanted = [parse_route(text) for text in routes]
    addresses = addresses_of(bind) if bind else LOOPBACK
    here = fleet()
    cluster, rank = find_node(here, name)
    with Link(here, cluster, rank) as link, Forwarder(link) as forwarder:
        bound = [forwarder.bind(route, addresses) for route in wanted]
        forwarder.serve()
        with _farewell(f"{link.label} goes on"):
            _show(link.label, bound)
            if open_:
                _open_later(forwarder, bound[0], f"http://{bound[0].place}/")
            link.hold()


@app.command()
def notebook(
    name: NodeName,
    port: Annotated[int | None, typer.Option("--port", help="The port here.", min=0, max=65535)] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that runs there.")] = False,
) -> None:
    """Jupyter on a machine, in a browser here: started there, or found again, and led here until Ctrl-C.

    It goes on without you, but the machine counts as idle while nothing computes and nobody works in it.

    Example: gpucloud notebook train
    """
    from gpucloud.cli.context import fleet
    from gpucloud.cli.doorway import Doorway
    from gpucloud.fleet.forward import LOOPBACK, Forwarder, Route
    from gpucloud.fleet.link import Link

    here = fleet()
    cluster, rank = find_node(here, name)
    with Link(here, cluster, rank) as link, Forwarder(link) as forwarder:
        if stop:
            _stop(link)
            return
        found = _start(link)
        route = Route(port, "localhost", found.port)
        bound = forwarder.bind(route, LOOPBACK, preferred=USUAL_PORT)
        forwarder.serve()
        url = f"http://{bound.place}{found.path}"
        with _farewell(f"Jupyter goes on: gpucloud notebook {name}, gpucloud notebook {name} --stop"):
            _show_notebook(link.label, found, bound, url)
            if not no_open:
                _open_later(forwarder, bound, Doorway(url).url)
            link.hold()


def _start(link: Link) -> Notebook:
    from gpucloud.jobs.notebook import start

    out.note(f"looking for Jupyter on {link.label}")
    return start(link.host())


def _stop(link: Link) -> None:
    """End what runs there, and say so."""
    from gpucloud.jobs.notebook import stop

    stopped = stop(link.host())
    out.note(f"Jupyter on {link.label} {'has ended' if stopped else 'was not running'}")
    if out.json:
        out.document("notebook", event="stopped", node=link.label, stopped=stopped)


def _show_notebook(label: str, found: Notebook, bound: Bound, url: str) -> None:
    what = "JupyterLab" if found.kind == "lab" else "Jupyter"
    out.note(f"{what} on {label} {'runs already' if found.reused else 'has started'}")
    if out.json:
        details = {"kind": found.kind, "reused": found.reused, "url": url}
        out.document("notebook", event="ready", node=label, **details, **_to_json(bound))
    else:
        out.line(url)
    out.flush()


def _show(label: str, bound: Sequence[Bound]) -> None:
    """Say which port leads where, and to whom else."""
    from gpucloud.fleet.forward import exposed

    if any(exposed(host) for each in bound for host in each.hosts):
        out.note(f"warning: whoever reaches this computer at {bound[0].hosts[0]} can use these ports")
    for each in bound:
        if each.moved:
            out.note(f"port {each.route.port} is not free here; {each.place} leads to it instead")
    if out.json:
        out.document("forward", event="listening", node=label, forwards=[_to_json(b) for b in bound])
    else:
        out.table(("LOCAL", "REMOTE"), [(each.place, f"{each.route} of {label}") for each in bound])
    out.flush()


def _open_later(forwarder: Forwarder, bound: Bound, url: str) -> None:
    """Open a browser as soon as the far side answers; some programs return only when they are closed."""

    def go() -> None:
        import webbrowser

        try:
            forwarder.await_answer(bound.route)
        except RemoteError as error:
            out.note(f"no browser is opened: {error.message}: {error.why}")
            return
        if not webbrowser.open(url):
            out.note(f"no browser is here; open {url}")

    threading.Thread(target=go, name="open", daemon=True).start()


@contextmanager
def _farewell(after: str) -> Iterator[None]:
    """Ctrl-C ends what is done here with a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        out.note("")
        out.note(f"nothing is forwarded any more; {after}")
        raise


def _to_json(bound: Bound) -> dict[str, object]:
    return {
        "local_hosts": list(bound.hosts),
        "local_port": bound.port,
        "remote_host": bound.route.host,
        "remote_port": bound.route.port,
        "moved": bound.moved,
    }
