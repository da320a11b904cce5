"""What the host asks EC2's metadata service, run by a shell before such a service on loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud_aws import Aws

METADATA = "http://169.254.169.254"
TOKEN = "AQAEA-token"


class Metadata:
    """IMDSv2: a token by PUT, and then what is asked for with it."""

    def __init__(self) -> None:
        self.notice = self.advice = False
        self.asked: list[str] = []

    def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            assert request.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
            return Response(TOKEN)
        if request.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return Response(status=401)
        if self.notice and request.path == "/latest/meta-data/spot/instance-action":
            return Response('{"action": "terminate", "time": "2026-11-21T08:22:00Z"}')
        if self.advice and request.path == "/latest/meta-data/events/recommendations/rebalance":
            return Response('{"noticeTime": "2026-11-21T08:20:00Z"}')
        return Response(status=404)


@pytest.fixture
def metadata(httpserver: HTTPServer) -> Metadata:
    metadata = Metadata()
    httpserver.expect_request(re.compile(".*")).respond_with_handler(metadata.answer)
    return metadata


@pytest.fixture(params=["curl", "wget"])
def announced(request: pytest.FixtureRequest, httpserver: HTTPServer, tmp_path: Path) -> Callable[[], int]:
    """Runs the probe where only one of the programs is there; 0 is a notice and 3 an advice."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"there is no {request.param} on this machine")
    (tmp_path / request.param).symlink_to(program)
    probe = Aws.traits.notice_probe.replace(METADATA, httpserver.url_for("").rstrip("/"))

    def run() -> int:
        done = subprocess.run(
            [shutil.which("sh") or "/bin/sh", "-c", probe],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("", "")
        return done.returncode

    return run


def test_there_is_no_notice_until_there_is_one(metadata: Metadata, announced: Callable[[], int]) -> None:
    assert announced() == 1
    asked = [
        "PUT /latest/api/token",
        "GET /latest/meta-data/spot/instance-action",
        "GET /latest/meta-data/events/recommendations/rebalance",
    ]
    assert metadata.asked == asked
    metadata.advice = True
    assert announced() == 3
    metadata.notice = True
    assert announced() == 0
    assert metadata.asked[-2:] == asked[:2]


def test_without_a_metadata_service_there_is_no_notice(tmp_path: Path) -> None:
    probe = Aws.traits.notice_probe.replace(METADATA, "http://127.0.0.1:9")
    assert subprocess.run(["sh", "-c", probe], capture_output=True, check=False).returncode != 0


def test_without_a_program_that_asks_there_is_no_notice(tmp_path: Path) -> None:
    shell = shutil.which("sh") or "/bin/sh"
    done = subprocess.run(
        [shell, "-c", Aws.traits.notice_probe], env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )
    assert done.returncode != 0
