"""``--explain``: the HTTP calls that a command makes, or would make, as curl commands."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from gpucloud import calls
from gpucloud.cli.curl import curl
from gpucloud.model import CANNOT_BE_HAD, Availability, ClusterState, GpuWish, Market, Requirements
from gpucloud.provider import LaunchSpec, Provider
from gpucloud.registry import load
from gpucloud.remote.keys import new_key_pair
from gpucloud.store import new_id
from tests.harness import azure, gcp
from tests.harness.acme import KEY, Server, Vendor, an_acme, install_acme, serving
from tests.harness.books import opened
from tests.harness.cli import Cli, Finished
from tests.harness.clouds import RIGS
from tests.harness.plugins import write_plugin
from tests.harness.rental import RENTAL_RIGS
from tests.harness.rig import Rig, configure

ACME = ("--provider", "acme")
LIST = ("offers", *ACME, "--live")
RENT = (*ACME, "--gpu", "H100", "--name", "x", "--no-push")
WOULD = "# would send: "

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")


def sent(done: Finished) -> list[str]:
    """The commands of what was sent."""
    return [line for line in done.err.splitlines() if line.startswith("curl ")]


def kept_back(done: Finished) -> list[str]:
    """The commands of what was not."""
    return [line.removeprefix(WOULD) for line in done.err.splitlines() if line.startswith(WOULD)]


def address(line: str) -> tuple[str, str]:
    """The method and the path of a command."""
    words = shlex.split(line)
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    return method, next(re.sub("^https?://[^/]*", "", word) for word in words if word.startswith("http"))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Vendor()) as found:
        yield found


@pytest.fixture
def env(server: Server, tmp_path: Path) -> dict[str, str]:
    """The environment in which acme is installed."""
    return install_acme(server, tmp_path / "plugins")


def rented(cli: Cli, server: Server, env: dict[str, str], folder: Path) -> str:
    """A cluster ``x`` at acme that is in the books; returns the id of its instance."""
    cli.ok("ps", env=env)
    adapter = an_acme(server, folder)
    offer = next(o for o in adapter.offers(Requirements(markets=(Market.ON_DEMAND,))) if o.gpu)
    key = new_key_pair().public
    spec = LaunchSpec(new_id("gc-", 20), "x", 0, (cli.data / "owner").read_text().strip(), key)
    instance = adapter.launch(offer, spec)
    cli.ok("fsck", "--rebuild", env=env)
    server.requests.clear()
    return instance.ref.id


@pytest.mark.parametrize("words", [("--explain", *LIST), (*LIST, "--explain")])
def test_the_option_is_taken_before_and_after_a_command(
    cli: Cli, server: Server, env: dict[str, str], words: tuple[str, ...]
) -> None:
    done = cli.ok(*words, "--json", env=env)
    plain = cli.ok(*LIST, "--json", env=env)
    assert [o["id"] for o in done.json["offers"]] == [o["id"] for o in plain.json["offers"]] != []
    assert [address(line) for line in sent(done)] == [("GET", "/v1/types")]
    assert len(server.requests) == 2
    assert not sent(plain) and "curl" not in plain.err


@needs_curl
def test_what_was_sent_can_be_sent_again_by_a_shell(
    cli: Cli, server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    rented(cli, server, env, tmp_path)
    done = cli.ok("down", "x", "--yes", "--explain", env=env)
    before = list(server.requests)
    lines = sent(done)
    assert [address(line)[0] for line in lines] == [request.method for request in before]
    assert "DELETE" in {request.method for request in before}
    for line in lines:
        assert KEY not in line
        subprocess.run(["sh", "-c", line], env={**os.environ, **env}, check=True, capture_output=True)
    again = server.requests[len(before) :]
    for request, repeated in zip(before, again, strict=True):
        assert (repeated.method, repeated.path, repeated.query) == (
            request.method,
            request.path,
            request.query,
        )
        assert repeated.json == request.json
        assert repeated.headers["authorization"] == request.headers["authorization"] == f"Bearer {KEY}"


@needs_curl
@pytest.mark.parametrize("command", ["launch", "run", "plan"])
def test_a_dry_run_shows_the_call_that_rents_and_does_not_send_it(
    cli: Cli, server: Server, env: dict[str, str], command: str
) -> None:
    words = () if command == "plan" else ("--dry-run",)
    done = cli.ok(command, *RENT, *words, "--explain", "--json", "--", "true", env=env)
    assert done.json["schema"] == "gpucloud.plan/1"
    (line,) = kept_back(done)
    assert address(line) == ("POST", "/v1/instances")
    assert KEY not in done.err
    assert "acme: more follows" in done.err
    assert {request.method for request in server.requests} == {"GET"}
    assert not server.vendor.billing()
    with opened(cli.data) as store:
        assert not store.journal.rentals(gone=True)
        assert not store.clusters.living()

    subprocess.run(["sh", "-c", line], env={**os.environ, **env}, check=True, capture_output=True)
    asked: Any = server.requests[-1].json
    assert server.vendor.billing()
    assert asked["type"] == done.json["offers"][0]["instance_type"]
    assert (asked["tags"]["gpucloud-name"], asked["ssh_key"].split()[0]) == ("x", "ssh-ed25519")


@needs_curl
def test_what_was_shown_rents_nothing_when_it_is_run_as_a_script(
    cli: Cli, server: Server, env: dict[str, str]
) -> None:
    done = cli.ok("launch", *RENT, "--dry-run", "--explain", env=env)
    shown = "\n".join(line for line in done.err.splitlines() if line.startswith(("curl", "#")))
    before = len(server.requests)
    subprocess.run(["sh", "-c", shown], env={**os.environ, **env}, check=True, capture_output=True)
    assert {request.method for request in server.requests[before:]} == {"GET"}
    assert not server.vendor.billing()


def test_a_dry_run_without_the_option_calls_no_verb(cli: Cli, server: Server, env: dict[str, str]) -> None:
    done = cli.ok("launch", *RENT, "--dry-run", env=env)
    assert "curl" not in done.err
    assert {request.path for request in server.requests} == {"/v1/types"}


def test_a_plan_that_is_written_and_applied_shows_it_too(
    cli: Cli, server: Server, env: dict[str, str]
) -> None:
    planned = cli.ok("plan", *RENT, "-o", "plan.json", "--explain", env=env)
    applied = cli.ok("apply", "plan.json", "--dry-run", "--explain", env=env)
    for done in planned, applied:
        assert [address(line) for line in kept_back(done)] == [("POST", "/v1/instances")]
    assert not server.vendor.billing()


def test_of_several_machines_one_call_is_shown(cli: Cli, server: Server, env: dict[str, str]) -> None:
    done = cli.ok("launch", *RENT, "--nodes", "3", "--dry-run", "--explain", env=env)
    assert len(kept_back(done)) == 1
    assert "the same for each of the 3 machines" in done.err


@pytest.mark.parametrize(
    ("words", "method", "path"),
    [
        (("down", "x"), "DELETE", "/v1/instances/{}"),
        (("stop", "x", "--force"), "POST", "/v1/instances/{}/stop"),
        (("start", "x"), "POST", "/v1/instances/{}/start"),
        (("extend", "x", "1h"), "PATCH", "/v1/instances/{}"),
    ],
)
def test_other_dry_runs_show_what_they_keep_back(
    cli: Cli,
    server: Server,
    env: dict[str, str],
    tmp_path: Path,
    words: tuple[str, ...],
    method: str,
    path: str,
) -> None:
    instance = rented(cli, server, env, tmp_path)
    done = cli.ok(*words, "--dry-run", "--explain", env=env)
    assert [address(line) for line in kept_back(done)] == [(method, path.format(instance))]
    assert {request.method for request in server.requests} <= {"GET"}
    assert [thing.status for thing in server.vendor.instances() if thing.id == instance] == ["running"]


def test_what_fsck_would_end_is_shown_and_left(
    cli: Cli, server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    instance = rented(cli, server, env, tmp_path)
    with opened(cli.data) as store:
        (rental,) = store.journal.rentals()
        store.journal.gone(rental.token, "so the test says")
    done = cli("fsck", "--fix", "--dry-run", "--explain", env=env)
    assert done.code == 6
    assert [address(line) for line in kept_back(done)] == [("DELETE", f"/v1/instances/{instance}")]
    assert instance in [thing.id for thing in server.vendor.billing()]


def test_what_reap_would_end_is_shown_and_left(
    cli: Cli, server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    instance = rented(cli, server, env, tmp_path)
    with opened(cli.data) as store:
        (cluster,) = store.clusters.living()
        store.clusters.update(cluster.id, ClusterState.ENDING)
    done = cli.ok("reap", "--dry-run", "--explain", env=env)
    assert [address(line) for line in kept_back(done)] == [("DELETE", f"/v1/instances/{instance}")]
    assert {request.method for request in server.requests} <= {"GET"}


def test_what_a_cleanup_would_delete_is_shown_and_left(cli: Cli, tmp_path: Path) -> None:
    with RENTAL_RIGS["lambda"](tmp_path) as rig:
        env = configure(Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml", rig)
        provider = adapter_of(rig, tmp_path)
        offer = next(o for o in provider.offers(Requirements()) if o.availability is Availability.AVAILABLE)
        spec = LaunchSpec(new_id("gc-", 20), "x", 0, "me", new_key_pair().public)
        provider.terminate(provider.launch(offer, spec).ref)
        (key,) = rig.state.beside()
        done = cli.ok("providers", "cleanup", "lambda", "--dry-run", "--explain", env=env)
        assert [address(line) for line in kept_back(done)] == [("DELETE", f"/api/v1/ssh-keys/{key.id}")]
        assert rig.state.beside() == [key]


def test_where_an_adapter_does_not_tell_what_it_sends_no_verb_is_called(cli: Cli) -> None:
    done = cli.ok("launch", "--provider", "local", "--name", "x", "--no-push", "--dry-run", "--explain")
    assert not kept_back(done)
    assert "local: what would be sent is not shown" in done.err
    assert not list(cli.data.glob("providers/local/**/instances/*"))


def test_a_change_where_only_reads_belong_ends_a_dry_run(
    cli: Cli, server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    source = """
from tests.harness.acme.adapter import Acme as Real


class Acme(Real):
    def side_resources(self):
        self._http.delete("v1/resources/all")
        return super().side_resources()
"""
    rented(cli, server, env, tmp_path)
    write_plugin(tmp_path / "rash", "acme", source)
    env = {**env, "PYTHONPATH": os.pathsep.join([str(tmp_path / "rash"), env["PYTHONPATH"]])}
    done = cli.ok("stop", "x", "--dry-run", "--explain", env=env)
    assert [address(line) for line in kept_back(done)] == [("DELETE", "/v1/resources/all")]
    assert "the dry run ends here" in done.err
    assert {request.method for request in server.requests} <= {"GET"}


@pytest.fixture(params=[*RENTAL_RIGS, *RIGS])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with {**RENTAL_RIGS, **RIGS}[request.param](tmp_path) as found:
        yield found


def planted(rig: Rig) -> list[str]:
    """The secrets that a person would have given for this vendor, and what the fakes let in by."""
    files = [Path(value) for value in rig.environ.values() if value.startswith("/")]
    given = str({**rig.table, **rig.environ}) + "".join(f.read_text() for f in files if f.is_file())
    named = r"(?i)(?:secret|refresh_token|api_key)\w*['\"]: ['\"]([^'\"]{5,})['\"]"
    return [*re.findall(named, given), gcp.server.TOKEN, azure.server.TOKEN]


def test_a_dry_run_at_any_vendor_shows_the_first_change_and_no_secret(cli: Cli, rig: Rig) -> None:
    env = configure(Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml", rig)
    words = ("--provider", rig.name, "--gpu", rig.gpu, "--no-push")
    done = cli.ok("launch", *words, "--dry-run", "--explain", env=env)
    (line,) = kept_back(done)
    assert address(line)[0] in {"POST", "PUT"}
    assert sent(done)
    for shown in sent(done):
        # Many are sent at once; none is torn.
        assert shlex.split(shown)[0] == "curl"
        assert shown.count("curl -sS") == 1
    assert len(planted(rig)) > 2
    assert not [secret for secret in planted(rig) if secret in done.err]
    assert not rig.state.billing()
    assert f"{rig.name}: more follows" in done.err


def adapter_of(rig: Rig, folder: Path) -> Provider:
    adapter = load(rig.name)
    assert issubclass(adapter, Provider)
    return adapter(rig.settings(folder))


def test_a_whole_launch_at_any_vendor_shows_no_host_key(rig: Rig, tmp_path: Path) -> None:
    told: list[calls.Call] = []
    provider = adapter_of(rig, tmp_path)
    wish = GpuWish.parse(rig.gpu)
    offers = provider.offers(Requirements(gpus=(wish,)))
    wanted = [o for o in offers if wish.accepts(o.gpu, o.gpu_count) and o.availability not in CANNOT_BE_HAD]
    host_key = new_key_pair()
    spec = LaunchSpec(
        new_id("gc-", 20), "x", 0, "me", new_key_pair().public, host_key, ssh_from=("203.0.113.7/32",)
    )
    calls.listen(told.append)
    try:
        instance = provider.launch(min(wanted, key=lambda offer: offer.usd_per_hour), spec)
        provider.terminate(instance.ref)
    finally:
        calls.listen(None)
    inside = host_key.private.splitlines()[1]
    parts = [inside, *(base64.b64encode(f"{' ' * n}{inside}".encode())[8:-8].decode() for n in range(3))]
    assert [call for call in told if spec.token.encode() in call.content + call.url.encode()]
    for call in told:
        assert not [part for part in parts if part in curl(call)]


def test_who_is_told_of_what_was_found_is_shown_without_the_path_that_lets_in(
    cli: Cli, httpserver: HTTPServer
) -> None:
    httpserver.expect_oneshot_request("/T0/B0/let-me-in").respond_with_data("thanks")
    words = ("watch", "--gpu", "H100", "--once", "--provider", "sim", "--notify")
    done = cli.ok(*words, httpserver.url_for("/T0/B0/let-me-in"), "--explain")
    (line,) = sent(done)
    assert address(line) == ("POST", "/<hidden>")
    assert "let-me-in" not in done.err
    (request, _) = httpserver.log[0]
    assert shlex.split(line)[-1] == request.get_data(as_text=True)


def test_what_is_not_asked_for_is_not_loaded(cli: Cli) -> None:
    script = (
        "import sys; from gpucloud.cli import execute; execute(sys.argv[1:]);"
        "print([name for name in ('gpucloud.cli.calls', 'gpucloud.cli.curl', 'gpucloud.fleet.rehearsal')"
        " if name in sys.modules])"
    )
    for words, loaded in (
        (("ps",), "[]"),
        (("ps", "--explain"), "['gpucloud.cli.calls', 'gpucloud.cli.curl']"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            env=cli.environ, cwd=cli.project, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == loaded


def test_the_option_and_the_command_of_that_name_say_what_each_is(cli: Cli) -> None:
    told = cli.ok("explain", "--help").out
    assert "bill of a provider" in told
    assert "Show the HTTP calls as curl commands." in told
    assert cli.ok("explain", "vast", "stop", "--explain").out.startswith("Vast")


def test_a_key_of_the_configuration_is_the_variable_that_people_know(
    cli: Cli, server: Server, env: dict[str, str]
) -> None:
    secret = secrets.token_hex(16)
    bare = {name: value for name, value in env.items() if name != "GPUCLOUD_ACME_API_KEY"}
    cli.ok("login", "acme", "--stdin", stdin=secret, env=bare)
    done = cli("offers", *ACME, "--explain", env=bare)
    assert '"Authorization: Bearer $ACME_API_KEY"' in done.err
    assert secret not in done.err + done.out
