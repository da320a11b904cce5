"""``gpucloud login``, ``gpucloud logout``, and what ``gpucloud providers`` says of keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.harness.cli import COMMAND, Cli, Finished
from tests.harness.plugins import ACME, write_plugin

GOOD = "good-0123456789"
OURS = "~/config/gpucloud/credentials.toml"

RING = """
import json
import os
from pathlib import Path
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class Ring(KeyringBackend):
    priority = 1

    def _all(self):
        file = Path(os.environ["RING"])
        return json.loads(file.read_text()) if file.exists() else {}

    def get_password(self, service, username):
        return self._all().get(service + " " + username)

    def set_password(self, service, username, password):
        Path(os.environ["RING"]).write_text(json.dumps({**self._all(), service + " " + username: password}))

    def delete_password(self, service, username):
        left = self._all()
        if left.pop(service + " " + username, None) is None:
            raise PasswordDeleteError("not found")
        Path(os.environ["RING"]).write_text(json.dumps(left))
"""

TALKATIVE = """
from gpucloud.errors import AuthError
from gpucloud.provider import Adapter, Credential


class Talkative(Adapter):
    name = "talkative"
    credentials = (Credential("client_id"), Credential("client_secret"))

    def check_credentials(self, values):
        if values["client_secret"].startswith("bug"):
            raise KeyError(values["client_secret"])
        if not values["client_secret"].startswith("good"):
            raise AuthError("no " + values["client_secret"], provider=self.name, why=repr(values), hint="hm")
        return values["client_id"]
"""

SILENT = """
from gpucloud.provider import Adapter, Credential


class Silent(Adapter):
    name = "silent"
    credentials = (Credential("api_key"),)
"""


def account(request: Request) -> Response:
    accepted = request.headers.get("Authorization") == f"Bearer {GOOD}"
    return Response(json.dumps({"name": "ann@example.org"}), 200 if accepted else 401)


@dataclass(frozen=True, slots=True)
class Site:
    """An installation with vendors that have keys, and with a keyring."""

    cli: Cli
    environ: dict[str, str]

    @property
    def file(self) -> Path:
        return self.cli.project.parent / "config" / "gpucloud" / "credentials.toml"

    @property
    def ring(self) -> str:
        file = Path(self.environ["RING"])
        return file.read_text() if file.exists() else ""

    def __call__(self, *words: str, stdin: str = "", **environ: str) -> Finished:
        done = self.cli(*words, stdin=stdin, env={**self.environ, **environ})
        assert GOOD not in done.out + done.err
        return done

    def traced(self, *words: str, stdin: str) -> Finished:
        """Run a command that shows a traceback, as it is asked to."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.cli.project,
            env={**self.cli.environ, **self.environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" in done.stderr
        return Finished(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, stdin: str = "", **environ: str) -> Finished:
        done = self(*words, stdin=stdin, **environ)
        assert done.code == 0, done.err
        return done

    def source(self, name: str = "acme", **environ: str) -> str | None:
        listed = self.ok("providers", "--json", **environ).json["providers"]
        found: dict[str, str | None] = {row["name"]: row["credential_source"] for row in listed}
        return found[name]


@pytest.fixture
def site(cli: Cli, httpserver: HTTPServer, tmp_path: Path) -> Site:
    httpserver.expect_request(re.compile("/.*")).respond_with_handler(account)
    plugins = tmp_path / "plugins"
    for name, source in {"acme": ACME, "talkative": TALKATIVE, "silent": SILENT}.items():
        write_plugin(plugins, name, source)
    (plugins / "a_ring.py").write_text(RING)
    environ = {
        "PYTHONPATH": os.pathsep.join([str(plugins), cli.environ.get("PYTHONPATH", "")]),
        "PYTHON_KEYRING_BACKEND": "a_ring.Ring",
        "RING": str(tmp_path / "ring.json"),
        "GPUCLOUD_ACME_URL": httpserver.url_for(""),
    }
    return Site(cli, environ)


def test_a_key_that_the_provider_accepts_is_stored_and_used(site: Site) -> None:
    assert site.source() == "missing"
    done = site.ok("login", "acme", "--stdin", stdin=f"{GOOD}\n")
    assert done.out == ""
    assert "acme accepts it: ann@example.org" in done.err
    assert f"api_key of acme stored: {OURS}" in done.err
    assert site.file.read_text() == f'[acme]\napi_key = "{GOOD}"\n'
    assert site.file.stat().st_mode & 0o777 == 0o600
    assert site.file.parent.stat().st_mode & 0o777 == 0o700
    assert site.source() == OURS
    assert f"\t{OURS}\n" in site.ok("providers").out


def test_with_json_it_is_one_document_without_the_secret(site: Site) -> None:
    done = site.ok("login", "acme", "--stdin", "--json", stdin=GOOD)
    assert done.json == {
        "schema": "gpucloud.login/1",
        "provider": "acme",
        "keys": ["api_key"],
        "stored_in": OURS,
        "verified": True,
        "account": "ann@example.org",
        "credential_source": OURS,
        "failures": [],
    }


def test_a_key_that_is_refused_is_not_stored(site: Site) -> None:
    words = ("login", "acme", "--stdin")
    for done in site(*words, stdin="bad-0123"), site.traced(*words, "--debug", stdin="bad-0123"):
        assert done.code == 4
        assert "acme refused the credentials" in done.err
        assert "bad-0123" not in done.err
    assert not site.file.exists()


def test_one_that_cannot_be_checked_now_is_not_stored(site: Site) -> None:
    done = site("login", "acme", "--stdin", stdin=GOOD, GPUCLOUD_ACME_URL="http://127.0.0.1:1")
    assert done.code == 5
    assert not site.file.exists()


def test_one_that_nobody_can_check_is_stored_and_that_is_said(site: Site) -> None:
    done = site.ok("login", "silent", "--stdin", "--json", stdin=GOOD)
    assert (done.json["verified"], done.json["account"]) == (False, None)
    assert "stored" in done.err and "not verified" in done.err


@pytest.mark.parametrize("secret", ["never-told-0123", 'quo"ted\\0123', "sp ace%20/?&"])
@pytest.mark.parametrize(("kind", "code"), [("", 4), ("bug-", 1)])
def test_an_adapter_that_tells_the_secret_is_not_let(site: Site, secret: str, kind: str, code: int) -> None:
    words, typed = ("login", "talkative", "--stdin", "--json"), f"ann\n{kind}{secret}\n"
    for done in site(*words, stdin=typed), site.traced(*words, "--debug", stdin=typed):
        assert done.code == code
        for text in done.out, done.err:
            assert "REDACTED" in text
            assert secret not in text and json.dumps(secret)[1:-1] not in text


def test_several_secrets_are_asked_for_in_their_order_or_one_alone(site: Site) -> None:
    done = site("login", "talkative", "--stdin", "--key", "client_id", "--json", stdin="bob")
    assert (done.json["keys"], done.json["verified"]) == (["client_id"], False)
    assert site.ok("login", "talkative", "--stdin", "--json", stdin=f"ann\n{GOOD}\n").json["account"] == "ann"
    done = site("login", "talkative", "--stdin", "--key", "client_id", "--json", stdin="eve")
    assert (done.json["verified"], done.json["account"]) == (True, "eve")
    assert site.file.read_text() == f'[talkative]\nclient_id = "eve"\nclient_secret = "{GOOD}"\n'


def test_one_that_goes_before_it_is_told_of(site: Site) -> None:
    done = site.ok("login", "acme", "--stdin", stdin=GOOD, ACME_API_KEY="another")
    assert "what is used is that from environment ACME_API_KEY" in done.err
    assert site.source(ACME_API_KEY="another") == "environment ACME_API_KEY"


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["acme"], GOOD, "there is nobody to ask"),
        (["acme", "--stdin"], "", "no api_key was given"),
        (["acme", "--stdin"], " \n", "no api_key was given"),
        (["acme", "--stdin"], f"{GOOD}\x07x", "the api_key cannot be right"),
        (["talkative", "--stdin"], "ann\n", "no client_secret was given"),
        (["acme", "--stdin", "--key", "token"], GOOD, "acme needs no 'token'"),
        (["local", "--stdin"], GOOD, "gpucloud keeps no key for local"),
    ],
)
def test_what_cannot_be_done_is_2_and_stores_nothing(
    site: Site, words: list[str], stdin: str, said: str
) -> None:
    done = site("login", *words, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert said in done.err and "next: " in done.err
    assert not site.file.exists()


def test_a_provider_that_nobody_knows_is_3(site: Site) -> None:
    for command in "login", "logout":
        done = site(command, "acne")
        assert done.code == 3
        assert "did you mean 'acme'?" in done.err


def test_at_a_terminal_it_is_asked_for_and_not_shown(site: Site) -> None:
    asked = pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", "login", "acme"],
        cwd=str(site.cli.project),
        env={**site.cli.environ, **site.environ},
        encoding="utf-8",
        timeout=60,
    )
    asked.expect("https://acme.example/keys")
    asked.expect("api_key of acme: ")
    asked.sendline(GOOD)
    shown = asked.read()
    asked.close()
    assert asked.exitstatus == 0
    assert GOOD not in shown
    assert "ann@example.org" in shown
    assert GOOD in site.file.read_text()


def test_a_terminal_is_no_pipe(site: Site) -> None:
    asked = pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", "login", "acme", "--stdin"],
        cwd=str(site.cli.project),
        env={**site.cli.environ, **site.environ},
        encoding="utf-8",
        timeout=60,
    )
    assert "--stdin is for a pipe" in asked.read()
    asked.close()
    assert asked.exitstatus == 2


def test_the_keyring_keeps_it_when_asked_to(site: Site) -> None:
    done = site.ok("login", "acme", "--stdin", "--keyring", "--json", stdin=GOOD)
    assert done.json["stored_in"] == done.json["credential_source"] == site.source() == "keyring"
    assert json.loads(site.ring) == {"gpucloud acme.api_key": GOOD}
    assert GOOD not in site.file.read_text()
    assert GOOD not in site.ok("offers", "--provider", "acme", "--json").out

    assert site.ok("logout", "acme", "--json").json["removed"] == ["api_key"]
    assert json.loads(site.ring) == {}
    assert site.source() == "missing"


def test_a_key_that_moves_into_the_file_leaves_the_keyring(site: Site) -> None:
    site.ok("login", "acme", "--stdin", "--keyring", stdin=GOOD)
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    assert (json.loads(site.ring), site.source()) == ({}, OURS)


@pytest.mark.parametrize("lost", ["key", "backend"])
def test_a_keyring_that_does_not_give_it_is_told_of_by_that_provider_alone(site: Site, lost: str) -> None:
    site.ok("login", "acme", "--stdin", "--keyring", stdin=GOOD)
    environ = {}
    if lost == "key":
        Path(site.environ["RING"]).write_text("{}")
    else:
        environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
    found = site.ok("offers", "--live", "--json", **environ).json
    assert {offer["provider"] for offer in found["offers"]} >= {"local"}
    (failure,) = [failure for failure in found["failures"] if failure["provider"] == "acme"]
    assert failure["code"] == "auth" and "keyring" in failure["message"]
    site.ok("login", "acme", "--stdin", stdin=GOOD, **environ)
    assert site.source(**environ) == OURS


def test_without_a_keyring_that_works_nothing_is_stored(site: Site) -> None:
    backend = "keyring.backends.fail.Keyring"
    done = site("login", "acme", "--stdin", "--keyring", stdin=GOOD, PYTHON_KEYRING_BACKEND=backend)
    assert done.code == 2
    assert "the keyring cannot be used" in done.err
    assert not site.file.exists()


def test_the_keyring_is_not_even_loaded_when_no_key_is_in_there(site: Site) -> None:
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    script = (
        "import sys; from gpucloud.cli import execute\n"
        "assert execute(['providers']) == 0 and execute(['offers', '--provider', 'acme']) == 0\n"
        "assert 'keyring' not in sys.modules and 'tomlkit' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=site.cli.project,
        env={**site.cli.environ, **site.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_logout_says_where_another_one_still_is(site: Site) -> None:
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    done = site.ok("logout", "acme", "--json", ACME_TOKEN=GOOD)
    assert done.json == {
        "schema": "gpucloud.logout/1",
        "provider": "acme",
        "removed": ["api_key"],
        "credential_source": "environment ACME_TOKEN",
        "failures": [],
    }
    assert "what is used now is that from environment ACME_TOKEN" in done.err
    assert "there was nothing to delete" in site.ok("logout", "acme").err


def test_the_key_of_an_adapter_that_is_gone_can_be_deleted(site: Site) -> None:
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    assert site.cli.ok("logout", "acme", "--json").json["removed"] == ["api_key"]
    assert site.source() == "missing"


def test_a_key_that_machines_need_is_not_deleted_without_consent(site: Site) -> None:
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    site.ok("launch", "--name", "x", "--no-push", "--provider", "acme")
    done = site("logout", "acme")
    assert done.code == 2
    assert "rented there: x; without a key they can be neither seen nor ended" in done.err
    assert site.source() == OURS
    site.ok("logout", "acme", "--yes")
    assert site.source() == "missing"


def test_a_file_that_others_can_read_is_refused_with_what_to_do(site: Site) -> None:
    site.ok("login", "acme", "--stdin", stdin=GOOD)
    site.file.chmod(0o644)
    for words in ("providers",), ("login", "acme", "--stdin"), ("logout", "acme"):
        done = site(*words, stdin=GOOD)
        assert (done.code, done.out) == (2, "")
        assert f"next: chmod 600 {OURS}" in done.err
    site.file.chmod(0o600)
    assert site.source() == OURS


def test_without_a_key_every_place_that_was_looked_at_is_told(site: Site) -> None:
    done = site("launch", "--provider", "acme", "--no-push", "--yes")
    assert done.code == 4
    for place in "environment ACME_API_KEY", OURS, "~/.acme/config.toml", "~/config/gpucloud/config.toml":
        assert place in done.err
