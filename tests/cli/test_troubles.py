"""Providers in trouble, all at the same time, as somebody at the command line sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.harness.cli import Cli
from tests.harness.plugins import write_plugin

ADAPTER = """
from gpucloud.http import HttpClient
from gpucloud_local import Local


class {title}(Local):
    name = "{name}"

    @classmethod
    def configured(cls, settings):
        return True

    def offers(self, requirements):
        with HttpClient(self.name, self.settings.environ["MARKET"]) as http:
            for row in http.get("/{name}")["offers"]:
                yield row
"""
TROUBLES = ("busy", "failing", "garbage", "hanging")


@pytest.fixture
def market(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a command to which four providers in trouble are known."""
    gone = threading.Event()
    server = HTTPServer(threaded=True)

    def hang(_: Request) -> Response:
        gone.wait(60)
        return Response("too late")

    server.expect_request("/busy").respond_with_data("{}", status=429, headers={"Retry-After": "3600"})
    server.expect_request("/failing").respond_with_data("{}", status=500)
    server.expect_request("/garbage").respond_with_data("<html>welcome")
    server.expect_request("/hanging").respond_with_handler(hang)
    for name in TROUBLES:
        write_plugin(tmp_path / "plugins", name, ADAPTER.format(name=name, title=name.capitalize()))
    with server:
        yield {
            "PYTHONPATH": str(tmp_path / "plugins"),
            "MARKET": server.url_for("").rstrip("/"),
            "GPUCLOUD_OFFERS_TIMEOUT": "3s",
        }
        gone.set()


def test_four_troubles_at_once_leave_the_rest_and_are_four_clear_lines(
    cli: Cli, market: dict[str, str]
) -> None:
    asked = [word for name in ("sim", *TROUBLES) for word in ("--provider", name)]
    done = cli("offers", "H100", *asked, "--json", env=market)
    assert done.code == 0
    assert {offer["provider"] for offer in done.json["offers"]} == {"sim"}
    codes = {failure["provider"]: failure["code"] for failure in done.json["failures"]}
    assert codes == {
        "busy": "rate-limited",
        "failing": "unreachable",
        "garbage": "bad-reply",
        "hanging": codes["hanging"],
    }
    assert codes["hanging"] in {"timeout", "unreachable"}
    lines = done.err.splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == sorted(TROUBLES)
    assert "429" in next(line for line in lines if line.startswith("busy"))
    assert "500" in next(line for line in lines if line.startswith("failing"))
