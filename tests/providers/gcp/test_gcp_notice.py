"""The notice of an interruption, from a metadata service on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud_gcp import Gcp

PATH = "/computeMetadata/v1/instance/preempted"
CLIENTS = [name for name in ("curl", "wget") if shutil.which(name)]


@pytest.fixture(scope="module")
def one_server() -> Iterator[HTTPServer]:
    """A server; to end one takes a while."""
    with HTTPServer(host="127.0.0.1") as started:
        yield started


@pytest.fixture
def metadata(one_server: HTTPServer) -> Iterator[HTTPServer]:
    """The metadata service of a machine, which knows nothing yet."""
    one_server.clear()
    yield one_server
    one_server.check_assertions()


def tell(metadata: HTTPServer, value: str) -> None:
    """Let the service tell whether the machine is being taken back; like Google's, only when asked right."""

    def answer(request: Request) -> Response:
        asked_right = request.headers.get("Metadata-Flavor") == "Google"
        return (
            Response(value, 200) if asked_right else Response("Missing Metadata-Flavor:Google header.", 403)
        )

    metadata.expect_request(PATH).respond_with_handler(answer)


def notified(host: str, client: str, folder: Path) -> bool:
    """Whether the probe finds a notice, on a machine that has that client alone."""
    for name in ("grep", client):
        tool = shutil.which(name)
        assert tool
        (folder / name).symlink_to(tool)
    shell = shutil.which("dash") or "/bin/sh"
    done = subprocess.run(
        [shell, "-c", Gcp.traits.notice_probe],
        env={"PATH": str(folder), "GCE_METADATA_HOST": host, "LANG": os.environ.get("LANG", "C")},
        capture_output=True,
        check=False,
    )
    assert not done.stdout
    assert not done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("value", "expected"), [("TRUE", True), ("FALSE", False), ("", False)])
def test_the_notice_is_seen_when_there_is_one(
    metadata: HTTPServer, tmp_path: Path, client: str, value: str, expected: bool
) -> None:
    tell(metadata, value)
    assert notified(f"127.0.0.1:{metadata.port}", client, tmp_path) is expected


@pytest.mark.parametrize("client", CLIENTS)
def test_a_service_that_fails_is_no_notice(metadata: HTTPServer, tmp_path: Path, client: str) -> None:
    metadata.expect_request(PATH).respond_with_data("TRUE", 503)
    assert not notified(f"127.0.0.1:{metadata.port}", client, tmp_path)


@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_there_is_no_notice(tmp_path: Path, client: str) -> None:
    with HTTPServer(host="127.0.0.1") as gone:
        port = gone.port
    assert not notified(f"127.0.0.1:{port}", client, tmp_path)
