"""The vendor acme: virtual machines, disks and addresses behind a REST API on loopback that fails at will.

``Vendor`` is what is true there, ``Server`` the wires with their faults, ``Acme`` an adapter like any other::

    with serving() as server:
        server.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
        provider = an_acme(server, tmp_path)
        ...
        assert not server.vendor.billing()

``Only`` puts such an adapter into a ``Fleet`` of this process, ``DiesAt`` kills the client at a call, and
``install_acme`` is for the command line.
"""

from tests.harness.acme.adapter import Acme, AcmeSsh
from tests.harness.acme.client import (
    DIES_AT,
    PATIENCE,
    DiesAt,
    Hook,
    Killed,
    Moment,
    Only,
    an_acme,
    install_acme,
)
from tests.harness.acme.faults import EVERY_FAULT, READS, Fault, Trouble, Verb
from tests.harness.acme.server import KEY, Server, serving
from tests.harness.acme.vendor import TYPES, Period, Thing, Type, Vendor

__all__ = [
    "DIES_AT",
    "EVERY_FAULT",
    "KEY",
    "PATIENCE",
    "READS",
    "TYPES",
    "Acme",
    "AcmeSsh",
    "DiesAt",
    "Fault",
    "Hook",
    "Killed",
    "Moment",
    "Only",
    "Period",
    "Server",
    "Thing",
    "Trouble",
    "Type",
    "Vendor",
    "Verb",
    "an_acme",
    "install_acme",
    "serving",
]
