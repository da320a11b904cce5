"""Hosts as good as machines of their own: namespaces, an address, a private root and a real sshd each.

The namespaces have no names and the devices belong to open descriptors, so nothing can stay behind: all of it
is gone with the processes, also when the test process is killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

from tests.harness import wan
from tests.harness.machine import Machine
from tests.harness.sshd import START_DEADLINE_S, SYSTEM_PATH, HarnessError, SshHost, generate_key

MAX_HOSTS = 250
_RANGE = IPv4Network("10.128.0.0/10")
CLIENT_NUMBER = 254
"""The last part of this machine's address in a block."""
_ROUTES = Path("/proc/net/route")
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_TUN_EXCL, _IFF_VNET_HDR = 0x0001, 0x1000, 0x8000, 0x4000
_TUNSETOFFLOAD = 0x400454D0
_TUN_F_CSUM, _TUN_F_TSO4 = 0x01, 0x02


class Network:
    """Running hosts and the lines that lead to them; ``interface`` is this machine's end."""

    def __init__(
        self, hosts: tuple[SshHost, ...], interface: str, machines: Mapping[str, Machine], link: _Link
    ) -> None:
        self.hosts = hosts
        self.interface = interface
        self._machines = machines
        self._link = link

    def link(
        self,
        name: str,
        *,
        delay_ms: float | None = None,
        jitter_ms: float | None = None,
        loss: float | None = None,
        rate_bytes_s: float | None = None,
        down: bool | None = None,
    ) -> None:
        """Change the line of the host ``name``; in force on return. What is ``None`` stays as it is.

        All of it is per way: from here to a host and back takes twice ``delay_ms``, from one host to
        another and back the sum of both lines twice. ``loss`` is 0 to 1, ``rate_bytes_s`` 0 is unlimited,
        and ``down`` swallows every packet without an answer.
        """
        settings = {
            "delay_ms": delay_ms,
            "jitter_ms": jitter_ms,
            "loss": loss,
            "rate_bytes_s": rate_bytes_s,
            "down": down,
        }
        changed = {key: value for key, value in settings.items() if value is not None}
        self._link.change(self._machines[name].address, changed)

    def kill(self, name: str) -> None:
        """Kill -9 the host ``name`` for good, as when its power is cut: nothing answers at its address."""
        # First, or its kernel would still close its connections for it.
        self.link(name, down=True)
        self._machines[name].kill()


class _Link:
    """The packet carrier's process and the socket that commands it."""

    def __init__(self, client: int, devices: Mapping[str, int]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_DEADLINE_S)
        pairs = [f"{address}={device}" for address, device in devices.items()]
        descriptors = [str(theirs.fileno()), str(client)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", wan.__file__, *descriptors, *pairs],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), client, *devices.values()],
                start_new_session=True,
            )

    def change(self, address: str, settings: Mapping[str, float]) -> None:
        self._control.send(json.dumps({"host": address, **settings}).encode())
        if self._control.recv(16) != b"ok":
            raise HarnessError("the link between the hosts has died")

    def close(self) -> None:
        self._control.close()
        self._process.wait()


@contextlib.contextmanager
def namespace_hosts(count: int, *, rtt_ms: float = 0, folder: Path) -> Iterator[Network]:
    """``count`` hosts, ``host1``, ``host2``..., each ``rtt_ms`` away from here and twice that from another.

    Every host has its own /etc, /root, /tmp, processes and hostname, sees the machine's programs, and answers
    SSH for root on port 22 of its own address. Keys and logs are in ``folder``, which must be new or empty.
    The hosts live until the context or the calling thread ends.

    Raises:
        HarnessError: when one does not come up.
    """
    if not 1 <= count <= MAX_HOSTS:
        raise ValueError(f"{count} hosts: between 1 and {MAX_HOSTS} fit into one network")
    folder.mkdir(parents=True, exist_ok=True)
    identity = folder.absolute() / "identity"
    authorized = generate_key(identity)
    with ExitStack() as stack, ExitStack() as devices:
        interface, block, client = claim_block()
        devices.callback(os.close, client)
        names = {f"host{number}": str(block[number]) for number in range(1, count + 1)}
        machines = {name: Machine(name, address, folder / name) for name, address in names.items()}
        for machine in machines.values():
            stack.enter_context(machine.launched(authorized, names))
        wiring = [f"addr add {block[CLIENT_NUMBER]}/24 dev {interface}", f"link set {interface} up"]
        ends = {}
        for machine in machines.values():
            end = f"{interface}{machine.name}"
            ends[machine.address] = open_tun(end)
            devices.callback(os.close, ends[machine.address])
            wiring.append(f"link set {end} netns {machine.namespaces()} name eth0")
        ip(wiring)
        link = _Link(client, ends)
        stack.callback(link.close)
        # From here on only the link holds the devices, so they go when it goes.
        devices.close()
        for machine in machines.values():
            machine.boot()
        hosts = tuple(machine.await_ssh(identity) for machine in machines.values())
        network = Network(hosts, interface, machines, link)
        for host in hosts:
            network.link(host.name, delay_ms=rtt_ms / 2)
        yield network


def open_tun(name: str, *, uncut: bool = False) -> int:
    """A descriptor, for which reads do not wait, of a new TUN device; the device goes when it is closed.

    With ``uncut`` the kernel leaves it to the device to cut streams into packets and to compute checksums:
    each read gives up to 64 KiB behind a ``struct virtio_net_hdr``, and a write takes the same.

    Raises:
        OSError: ``EBUSY`` when the name is taken.
    """
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if uncut else 0)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if uncut:
            fcntl.ioctl(device, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4)
    except OSError:
        os.close(device)
        raise
    return device


def claim_block(*, uncut: bool = False) -> tuple[str, IPv4Network, int]:
    """A network of 254 addresses that nobody uses: the name of its TUN device, its block, and the device.

    Raises:
        HarnessError: when there is none.
    """
    # The device's name stands for the block, so that the kernel grants each block to one process only.
    blocks = list(_RANGE.subnets(new_prefix=24))
    used = _routed()
    for step in range(len(blocks)):
        number = (os.getpid() + step) % len(blocks)
        if any(blocks[number].overlaps(route) for route in used):
            continue
        try:
            return f"gcl{number}", blocks[number], open_tun(f"gcl{number}", uncut=uncut)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    raise HarnessError(f"no free network in {_RANGE}")


def _routed() -> list[IPv4Network]:
    routes = []
    for line in _ROUTES.read_text().splitlines()[1:]:
        columns = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(columns[n]), sys.byteorder) for n in (1, 7))
        route = IPv4Network((destination, mask.bit_count()))
        # One that covers the whole range, as a default route does, is overruled by ours.
        if not route.supernet_of(_RANGE):
            routes.append(route)
    return routes


def ip(commands: list[str]) -> None:
    """Run commands of ``ip``, one after the other. Raises ``HarnessError`` with what it says of one."""
    done = subprocess.run(
        ["ip", "-batch", "-"],
        check=False,
        input="\n".join(commands),
        env={"PATH": SYSTEM_PATH},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise HarnessError(f"ip: {done.stderr.strip()}")
