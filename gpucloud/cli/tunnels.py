"""``gpucloud forward`` and ``notebook``: ports of a machine as ports of this computer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.access import NodeName, find_node
from gpucloud.cli.app import app
from gpucloud.cli.render import out
from gpucloud.errors import RemoteError

if TYPE_CHECKING:
    from gpucloud.fleet.forward import Bound, Forwarder
    from gpucloud.fleet.link import Link

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
        _show(link.label, bound)
        if open_:
            _open_later(forwarder, bound[0], f"http://{bound[0].place}/")
        _hold(link)


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
    """Open a browser as soon as the far side answers."""

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


def _hold(link: Link) -> None:
    """Go on until Ctrl-C, or until the machine is gone."""
    try:
        link.hold()
    except KeyboardInterrupt:
        out.note("")
        out.note(f"nothing is forwarded any more; {link.label} goes on")
        raise


def _to_json(bound: Bound) -> dict[str, object]:
    return {
        "local_hosts": list(bound.hosts),
        "local_port": bound.port,
        "remote_host": bound.route.host,
        "remote_port": bound.route.port,
        "moved": bound.moved,
    }
