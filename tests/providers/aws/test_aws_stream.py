"""A price list as large as a region's: read in little memory, and taken up again where a connection broke."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpucloud.http import untold
from gpucloud.provider import ProviderSettings
from gpucloud_aws import Aws
from tests.providers.aws.documents import (
    ADVISOR,
    C6I,
    G5,
    P5,
    SPOT,
    advisor,
    list_of,
    price_list,
    row,
    spot,
    spot_feed,
)

ROOT = Path(__file__).resolve().parents[3]
MOST_KIB = 100 * 1024

READ = """
import sys
import time

from gpucloud.provider import ProviderSettings
from gpucloud_aws import Aws

url, region = sys.argv[1:]
table = dict.fromkeys(("catalog_url", "spot_url", "advisor_url"), url)
aws = Aws(ProviderSettings("aws", "/nowhere", table=table))
read = []
began = time.perf_counter()
published = aws.catalog(region, None, lambda done, of: read.append(done))
print(len(published.offers), max(read), time.perf_counter() - began)
"""

# What a process has used at most counts what started it, too, so it is started by a small one.
MEASURE = """
import resource
import subprocess
import sys

subprocess.run([sys.executable, "-c", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass
class File:
    """A file that is sent in blocks; the first ``breaks`` times only to the byte ``until``."""

    blocks: list[bytes]
    breaks: int = 0
    until: int = 0
    asked: list[str | None] = field(default_factory=list)

    @cached_property
    def size(self) -> int:
        return sum(map(len, self.blocks))

    def parts(self, start: int, end: int) -> Iterator[bytes]:
        at = 0
        for block in self.blocks:
            yield block[max(0, start - at) : max(0, end - at)]
            at += len(block)


@contextmanager
def serving(files: dict[str, File]) -> Iterator[str]:
    """A server on loopback, which knows editions and ranges; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file, asked = files[self.path], self.headers.get("Range")
            file.asked.append(asked)
            start = 0 if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))
            if asked is not None:
                assert self.headers.get("If-Range") == '"one"'
            self.send_response(200 if asked is None else 206)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(file.size - start))
            self.end_headers()
            end = file.size
            if file.breaks:
                file.breaks -= 1
                end = min(end, max(start, file.until) + 1)
            for part in file.parts(start, end):
                self.wfile.write(part)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def a_region(megabytes: int) -> list[bytes]:
    """A price list as it is mixed in truth: of a hundred rows a few are of a plain Linux instance."""
    reserved = row(C6I, TermType="Reserved", LeaseContractLength="3yr", PurchaseOption="Partial Upfront")
    windows = row(C6I, Operating_System="Windows", License_Model="Bring your own license")
    dedicated = row(C6I, Tenancy="Dedicated", Group_Description='two\nlines and ""quotes""')
    block = (reserved * 90 + windows * 5 + dedicated * 3 + row(C6I) * 2).encode()
    blocks = [block] * (megabytes * 10**6 // len(block))
    for number in range(150):
        place = number * len(blocks) // 150
        gpu = row(G5, SKU=f"SKU{number}", Instance_Type=f"g5.{number}xlarge").encode()
        blocks[place] = gpu + blocks[place]
    return [price_list(), *blocks, row(P5).encode()]


def all_of_spot() -> bytes:
    """Spot prices as many as there are: 40 regions with 650 instance types each."""
    sizes = [
        {
            "size": f"g5.{number}xlarge",
            "valueColumns": [
                {"name": "linux", "prices": {"USD": f"0.{number + 1}"}},
                {"name": "mswin", "prices": {"USD": "N/A*"}},
            ],
        }
        for number in range(650)
    ]
    return json.dumps(spot_feed({f"us-east-{number}": sizes for number in range(40)})).encode()


def test_a_price_list_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    files = {
        list_of("us-east-1"): File(a_region(60)),
        SPOT: File([all_of_spot()]),
        ADVISOR: File([advisor("us-east-1", **dict.fromkeys(map("g5_{}xlarge".format, range(8000)), 1))]),
    }
    size = files[list_of("us-east-1")].size
    assert size > 59 * 10**6
    with serving(files) as url:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, READ, url, "us-east-1"],
            cwd=tmp_path,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'providers'}"},
            capture_output=True,
            text=True,
            check=True,
        )
    offers, read, seconds, most_kib = map(float, done.stdout.split())
    assert offers == 151 + 150
    assert read == sum(file.size for file in files.values())
    sys.stdout.write(f"{size / 10**6 / seconds:.0f} MB/s, {most_kib / 1024:.0f} MiB\n")
    assert most_kib < MOST_KIB


def test_a_connection_that_breaks_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    blocks = a_region(2)
    broken = File(blocks, breaks=2, until=len(blocks[0]) + 700_123)
    files = {SPOT: File([spot(g5_7xlarge="0.4")]), ADVISOR: File([advisor(g5_7xlarge=0)])}
    told: list[int] = []
    with serving({list_of("us-east-1"): File(blocks), **files}) as url:
        whole = aws(url, tmp_path).catalog("us-east-1", None, untold)
    with serving({list_of("us-east-1"): broken, **files}) as url:
        mended = aws(url, tmp_path).catalog("us-east-1", None, lambda read, _: told.append(read))
    assert whole is not None
    assert mended is not None
    assert len(whole.offers) == 152
    at = broken.until + 1
    assert broken.asked == [None, f"bytes={at}-", f"bytes={at + 1}-"]
    assert told == sorted(told)
    assert [offer.id for offer in mended.offers] == [offer.id for offer in whole.offers]
    assert [offer.usd_per_hour for offer in mended.offers] == [offer.usd_per_hour for offer in whole.offers]
    assert mended.validator is not None


def aws(url: str, folder: Path) -> Aws:
    table = dict.fromkeys(("catalog_url", "spot_url", "advisor_url"), url)
    return Aws(ProviderSettings("aws", folder, table=table))
