"""What Azure refuses of networks, interfaces and rules in which IPv4 and IPv6 do not fit together.

As of November 2026: https://learn.microsoft.com/azure/virtual-network/ip-services/ipv6-overview
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

Body = Mapping[str, Any]

IPV4: Final = "IPv4"
IPV6: Final = "IPv6"


class Fault(NamedTuple):
    """Azure's code, and what it says."""

    code: str
    text: str


def of_network(network: Body, before: Body, interfaces: Iterable[Body]) -> Iterator[Fault]:
    """Subnets outside their network, or of IPv6 and no /64; and prefixes that would go but are in use."""
    space = [ipaddress.ip_network(each) for each in network["properties"]["addressSpace"]["addressPrefixes"]]
    subnets = prefixes(network)
    for name, listed in subnets.items():
        for prefix in listed:
            # mypy knows no common type of both kinds of network.
            around: list[Any] = [each for each in space if each.version == prefix.version]
            if not any(prefix.subnet_of(each) for each in around):
                yield Fault("NetcfgInvalidSubnet", f"{prefix} of {name} is not in the network.")
            if prefix.version == 6 and prefix.prefixlen != 64:
                yield Fault("NetcfgInvalidSubnet", f"{prefix} of {name} is no /64.")
    used = [configuration for interface in interfaces for configuration in configurations(interface)]
    for name, listed in prefixes(before).items():
        gone = {f"IPv{prefix.version}" for prefix in listed - subnets.get(name, set())}
        for part in used:
            there = part["subnet"]["id"].lower().endswith(f"/{network['name']}/subnets/{name}".lower())
            if there and version(part) in gone:
                yield Fault("InUsePrefixCannotBeDeleted", f"A prefix of {name} is in use.")


def of_interface(interface: Body, things: Mapping[str, Body]) -> Iterator[Fault]:
    """No primary address of IPv4; and networks and addresses that are not there, or of the other kind.

    ``things`` are all there are, by their ids in lower case.
    """
    parts = configurations(interface)
    first = [part for part in parts if part.get("primary") or len(parts) == 1]
    if [version(part) for part in first] != [IPV4]:
        yield Fault("InvalidRequestFormat", "There must be one primary configuration, of IPv4.")
    for part in parts:
        network, _, subnet = part["subnet"]["id"].rpartition("/subnets/")
        public = part.get("publicIPAddress", {}).get("id", "")
        missing = [each for each in (network, public) if each and each.lower() not in things]
        if missing:
            yield Fault("InvalidResourceReference", f"There is no {missing[0]}.")
            return
        if version(part) not in {f"IPv{each.version}" for each in prefixes(things[network.lower()])[subnet]}:
            yield Fault("InvalidRequestFormat", f"The subnet {subnet} has no {version(part)}.")
        if public and things[public.lower()]["properties"]["publicIPAddressVersion"] != version(part):
            yield Fault("InvalidRequestFormat", f"{public} is not of {version(part)}.")


def of_rule(rule: Body) -> Iterator[Fault]:
    """A source of one kind, and a destination of the other."""
    ends = (rule["properties"][key] for key in ("sourceAddressPrefix", "destinationAddressPrefix"))
    if len({ipaddress.ip_network(end).version for end in ends if end != "*"}) > 1:
        yield Fault("SecurityRuleInvalidAddressPrefix", "The rule mixes IPv4 and IPv6.")


def configurations(interface: Body) -> list[Any]:
    """What an interface has of addresses."""
    return [each["properties"] for each in interface["properties"]["ipConfigurations"]]


def version(configuration: Body) -> str:
    """Of which kind an address of an interface is."""
    return str(configuration.get("privateIPAddressVersion", IPV4))


def prefixes(network: Body) -> dict[str, set[ipaddress.IPv4Network | ipaddress.IPv6Network]]:
    """Those of each subnet, by name; a single one may be in a field of its own."""
    subnets = network.get("properties", {}).get("subnets", [])
    told = {each["name"]: each["properties"] for each in subnets}
    return {
        name: {ipaddress.ip_network(each) for each in part.get("addressPrefixes") or [part["addressPrefix"]]}
        for name, part in told.items()
    }
