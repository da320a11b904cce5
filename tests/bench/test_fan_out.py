"""Twenty slow providers at once: little longer than the slowest of them alone."""

from __future__ import annotations

import io
import ipaddress
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gpucloud.catalog.cache import Cache
from gpucloud.catalog.history import History
from gpucloud.catalog.names import named
from gpucloud.cli.offer_view import SHOWN, USUAL, View
from gpucloud.http import HttpClient
from gpucloud.market import Search, Terms
from gpucloud.model import Gpu, GpuWish, Market, Offer, Requirements, utcnow
from gpucloud.provider import Provider
from tests.bench.server import CHIPS, PROVIDERS
from tests.harness.adapters import stated
from tests.harness.timing import best_ratio

WAIT_S = 0.3
RUNS = 3
ANYTHING = Requirements(markets=())
H100 = Requirements(markets=(), gpus=(GpuWish.parse("H100:8"),))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key, and a certificate for loopback that it has signed itself."""
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    key, now = ec.generate_private_key(ec.SECP256R1()), utcnow()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(text + signed.public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def serving(offers: int, certificate: Path) -> Iterator[str]:
    """The providers' APIs, at an address."""
    script = Path(__file__).with_name("server.py")
    words = [sys.executable, str(script), str(offers), str(WAIT_S), str(certificate)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"https://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


@contextmanager
def providers(address: str) -> Iterator[list[Provider]]:
    """Adapters like any other, each over a client of its own."""
    chips = {chip: named(chip) for chip in CHIPS}
    with ExitStack() as stack:
        found: list[Provider] = []
        for number in range(PROVIDERS):
            name = f"provider-{number}"
            http = stack.enter_context(HttpClient(name, address))
            found.append(stated(name, partial(_offers, name, http, f"/{number}", chips)))
        yield found


def _offers(name: str, http: HttpClient, path: str, chips: dict[str, Gpu]) -> Iterable[Offer]:
    now = utcnow()
    for row in http.get(path):
        yield Offer(
            provider=name,
            instance_type=row["name"],
            market=Market.SPOT if row["spot"] else Market.ON_DEMAND,
            usd_per_hour=Decimal(row["usd"]),
            as_of=now,
            source="api",
            gpu=chips[row["gpu"]],
            gpu_count=row["gpus"],
            region=row["region"],
            vcpus=row["vcpus"],
            memory_gib=Decimal(row["memory"]),
        )


def asking(providers: list[Provider], wanted: Requirements, folder: Path) -> Callable[[], float]:
    """How long it takes from the question until the answer is ranked and printed; it is remembered later."""

    def ask() -> float:
        with Cache(folder / "market.db") as cache, redirect_stdout(io.StringIO()) as printed:
            history = History(folder / "history.db")
            search = Search(providers, wanted, Terms(60, limit=100), cache, history)
            view = View(USUAL, SHOWN)
            began = time.perf_counter()
            found = view.follow(search)
            view.write(found)
            took = time.perf_counter() - began
            assert not found.failures
            assert len(printed.getvalue().splitlines()) == len(found.offers) > 10
            search.remember()
            history.close()
        return took

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [ANYTHING, H100], ids=["all", "one GPU"])
def test_twenty_providers_take_little_longer_than_the_slowest(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Requirements
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(1_000, certificate) as address, providers(address) as everybody:
        ours = asking(everybody, wanted, tmp_path)
        alone = asking(everybody[:1], wanted, tmp_path)
        ours()
        assert best_ratio(ours, alone, 1.6, RUNS) <= 1.6


@pytest.mark.slow
def test_a_hundred_thousand_offers_take_a_second_and_a_half_longer_than_the_wait(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(5_000, certificate) as address, providers(address) as everybody:
        ours = asking(everybody, ANYTHING, tmp_path)
        limit = (WAIT_S + 1.5) / WAIT_S
        assert best_ratio(ours, lambda: WAIT_S, limit, RUNS) <= limit
