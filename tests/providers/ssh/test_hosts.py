"""The table ``[providers.ssh.hosts.NAME]`` as people write it, wrongly too."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import ConfigError
from gpucloud.model import Availability, Gpu, Market, Offer, Requirements, SshAddress
from gpucloud.provider import ProviderSettings
from gpucloud.remote.keys import identity, new_key_pair
from gpucloud_ssh import Ssh
from tests.providers.rented import a_spec

FULL = """
[hosts.box]
address = "box.example"
port = 2222
user = "ada"
identity_file = "~/.ssh/lab key"
jump = "eve@gate.example:2200"
host_key = "{key}"
gpu = "H100-SXM-80:8"
usd_per_hour = 12.35
slots = 2
vcpus = 208
memory_gib = 1800.5
disk_gib = 20000
region = "basement"

[hosts.plain]
address = "10.0.0.7"
"""

JUMPS = {
    "gate": SshAddress("gate", 22, "ada"),
    "eve@gate": SshAddress("gate", 22, "eve"),
    "gate:2200": SshAddress("gate", 2200, "ada"),
    "eve@gate.example:2200": SshAddress("gate.example", 2200, "eve"),
    "eve@10.1.2.3:1": SshAddress("10.1.2.3", 1, "eve"),
    "[::1]": SshAddress("::1", 22, "ada"),
    "[::1]:22": SshAddress("::1", 22, "ada"),
    "eve@[fe80::1:2]:65535": SshAddress("fe80::1:2", 65535, "eve"),
}

MISTAKES: list[tuple[str, str, object, str]] = [
    ("port too large", "port", 65536, "less than or equal to 65535"),
    ("port zero", "port", 0, "greater than or equal to 1"),
    ("port as text", "port", "22", "valid integer"),
    ("port as a fraction", "port", 22.5, "valid integer"),
    ("port as a truth", "port", True, "valid integer"),
    ("no address", "address", "", "the name or the address alone"),
    ("address with a user", "address", "ada@box", "the name or the address alone"),
    ("address with a port", "address", "box:22", "the name or the address alone"),
    ("address with brackets", "address", "[::1]", "the name or the address alone"),
    ("address with a space", "address", "my box", "the name or the address alone"),
    ("address as an option", "address", "-oProxyCommand=x", "the name or the address alone"),
    ("address as a number", "address", 10, "valid string"),
    ("user with a space", "user", "a b", "match pattern"),
    ("no user", "user", "", "match pattern"),
    ("no key", "identity_file", "", "at least 1 character"),
    ("jump without a host", "jump", "eve@", "user@host:port"),
    ("jump with a word for a port", "jump", "gate:ssh", "user@host:port"),
    ("jump with too large a port", "jump", "gate:70000", "user@host:port"),
    ("jump with port zero", "jump", "gate:0", "user@host:port"),
    ("two jumps", "jump", "gate,other", "user@host:port"),
    ("jump with a bare IPv6 address", "jump", "fe80::1", "user@host:port"),
    ("jump as an option", "jump", "-oProxyCommand=x", "user@host:port"),
    ("jump with a space", "jump", "eve @gate", "user@host:port"),
    ("host key without a kind", "host_key", "AAAA", "public line"),
    ("host key with the host's name", "host_key", "box ssh-ed25519 AAAA", "public line"),
    ("host key cut off", "host_key", "ssh-ed25519 AAAA", "public line"),
    ("host key of another kind", "host_key", "ssh-rsa " + new_key_pair().public.split()[1], "public line"),
    ("no host key", "host_key", "", "public line"),
    ("a GPU that is none", "gpu", "???", "is not a GPU"),
    ("memory for a GPU", "gpu", "24GB+", "names no GPU"),
    ("no GPU of a kind", "gpu", "H100:0", "no GPU at all"),
    ("a number for a GPU", "gpu", 4, "names no GPU"),
    ("a negative price", "usd_per_hour", -0.5, "greater than or equal to 0"),
    ("an endless price", "usd_per_hour", float("inf"), "finite"),
    ("no price", "usd_per_hour", float("nan"), "finite"),
    ("a price in words", "usd_per_hour", "cheap", "decimal"),
    ("no slots", "slots", 0, "greater than or equal to 1"),
    ("half a slot", "slots", 1.5, "valid integer"),
    ("no CPUs", "vcpus", 0, "greater than or equal to 1"),
    ("no memory", "memory_gib", 0, "greater than 0"),
    ("negative disk", "disk_gib", -5, "greater than 0"),
    ("a list for a region", "region", ["a"], "valid string"),
]


def ssh(folder: Path, hosts: dict[str, Any]) -> Ssh:
    """The provider with these hosts."""
    return Ssh(ProviderSettings("ssh", folder / "state", table={"hosts": hosts}))


def offers(provider: Ssh) -> dict[str, Offer]:
    """The offers by the host's name."""
    return {offer.instance_type: offer for offer in provider.offers(Requirements())}


def test_it_is_configured_once_a_host_is_named(tmp_path: Path) -> None:
    assert not Ssh.configured(ProviderSettings("ssh", tmp_path))
    assert not Ssh.configured(ProviderSettings("ssh", tmp_path, table={"hosts": {}}))
    assert Ssh.configured(ProviderSettings("ssh", tmp_path, table={"hosts": {"box": {}}}))


def test_every_setting_of_a_file_arrives(tmp_path: Path) -> None:
    key = new_key_pair().public
    table = tomllib.loads(FULL.format(key=f"{key} root@box"))
    provider = Ssh(ProviderSettings("ssh", tmp_path / "state", table=table))
    box = offers(provider)["box"]
    assert (box.gpu, box.gpu_count) == (Gpu("H100", 80, "SXM"), 8)
    assert (box.usd_per_hour, box.amount, box.currency) == (Decimal("12.35"), Decimal("12.35"), "USD")
    assert (box.vcpus, box.memory_gib, box.disk_gib) == (208, Decimal("1800.5"), Decimal(20000))
    assert (box.region, box.market, box.availability) == (
        "basement",
        Market.ON_DEMAND,
        Availability.AVAILABLE,
    )
    assert (box.source, box.confidence) == ("your configuration", "configured")

    instance = provider.launch(box, a_spec(identity(tmp_path)))
    jump = SshAddress("gate.example", 2200, "eve", "~/.ssh/lab key")
    assert instance.ssh == SshAddress("box.example", 2222, "ada", "~/.ssh/lab key", jump)
    assert (instance.slots, instance.ref.region, instance.usd_per_hour) == (2, "basement", Decimal("12.35"))
    assert provider.host_keys(instance.ref) == (key,)


def test_what_is_not_set_is_free_of_charge_or_unknown(tmp_path: Path) -> None:
    provider = Ssh(
        ProviderSettings(
            "ssh", tmp_path / "state", table=tomllib.loads(FULL.format(key=new_key_pair().public))
        )
    )
    plain = offers(provider)["plain"]
    assert (plain.gpu, plain.gpu_count, plain.usd_per_hour) == (None, 0, Decimal(0))
    assert (plain.vcpus, plain.memory_gib, plain.disk_gib, plain.region) == (None, None, None, None)
    instance = provider.launch(plain, a_spec(identity(tmp_path)))
    assert instance.ssh == SshAddress("10.0.0.7", 22, "root")
    assert instance.slots == 1
    assert provider.host_keys(instance.ref) == ()


@given(cents=st.integers(0, 10_000_000))
def test_money_is_exactly_what_the_file_says(cents: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    written = f"{cents / 1000:.3f}"
    table = tomllib.loads(f'[hosts.box]\naddress = "box"\nusd_per_hour = {written}\n')
    (offer,) = Ssh(ProviderSettings("ssh", Path("/nonexistent"), table=table)).offers(Requirements())
    assert offer.usd_per_hour == Decimal(written)


@pytest.mark.parametrize("text", ["0.1", "2.50", "3", "0.000001", "0"])
def test_money_may_be_written_as_text(tmp_path: Path, text: str) -> None:
    assert offers(ssh(tmp_path, {"box": {"address": "box", "usd_per_hour": text}}))[
        "box"
    ].usd_per_hour == Decimal(text)


@pytest.mark.parametrize(("text", "wanted"), JUMPS.items())
def test_a_jump_host_is_read_as_ssh_reads_it(tmp_path: Path, text: str, wanted: SshAddress) -> None:
    provider = ssh(tmp_path, {"box": {"address": "box", "user": "ada", "jump": text}})
    instance = provider.launch(offers(provider)["box"], a_spec(identity(tmp_path)))
    assert instance.ssh == SshAddress("box", 22, "ada", jump=wanted)


@pytest.mark.parametrize("address", ["box", "box.example", "10.0.0.7", "::1", "fe80::1%eth0", "my_box-2"])
def test_an_address_may_be_a_name_or_a_number(tmp_path: Path, address: str) -> None:
    provider = ssh(tmp_path, {"box": {"address": address}})
    instance = provider.launch(offers(provider)["box"], a_spec(identity(tmp_path)))
    assert instance.ssh is not None
    assert instance.ssh.host == address


@pytest.mark.parametrize(("setting", "value", "why"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_names_its_setting(tmp_path: Path, setting: str, value: object, why: str) -> None:
    provider = ssh(tmp_path, {"good": {"address": "good"}, "box": {"address": "box", setting: value}})
    with pytest.raises(ConfigError) as caught:
        offers(provider)
    assert caught.value.message == f"ssh: the setting providers.ssh.hosts.box.{setting} is wrong"
    assert why in caught.value.why
    assert "\n" not in caught.value.why
    assert caught.value.hint


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"hosts": {"box": {}}}, "providers.ssh.hosts.box.address"),
        ({"hosts": {"box": "box.example"}}, "providers.ssh.hosts.box"),
        ({"hosts": ["box"]}, "providers.ssh.hosts"),
        ({"hosts": {"": {"address": "box"}}}, "providers.ssh.hosts."),
    ],
)
def test_a_table_of_the_wrong_shape_is_named(tmp_path: Path, table: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list(Ssh(ProviderSettings("ssh", tmp_path, table=table)).offers(Requirements()))
    assert place in caught.value.message


@pytest.mark.parametrize(
    ("table", "place", "close"),
    [
        ({"hosts": {"box": {"address": "box", "prot": 22}}}, "hosts.box.prot", "port"),
        (
            {"hosts": {"box": {"address": "box", "identityfile": "x"}}},
            "hosts.box.identityfile",
            "identity_file",
        ),
        (
            {"hosts": {"box": {"address": "box", "price_per_hour": 1}}},
            "hosts.box.price_per_hour",
            "usd_per_hour",
        ),
        ({"host": {"box": {"address": "box"}}}, "host", "hosts"),
    ],
)
def test_an_unknown_setting_suggests_a_known_one(
    tmp_path: Path, table: dict[str, Any], place: str, close: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        list(Ssh(ProviderSettings("ssh", tmp_path, table=table)).offers(Requirements()))
    assert caught.value.message == f"ssh: the setting providers.ssh.{place} is wrong"
    assert "no such setting" in caught.value.why
    assert caught.value.hint == f"did you mean {close!r}?"
