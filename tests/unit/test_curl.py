"""HTTP requests as curl commands: what a shell makes of them, and that no secret is in them."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud import redact
from gpucloud.calls import Call
from gpucloud.cli.curl import curl

KEY = "k3y-of-the-tests/+"
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmOojCIQEVzrAyp ann@here"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
URL = "https://api.acme.example/v1/instances"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret of which the variable is known."""
    monkeypatch.setattr(redact, "_known", {})
    redact.add(KEY, "ACME_API_KEY")


@pytest.fixture(params=["sh", pytest.param("busybox", marks=pytest.mark.needs_busybox)])
def shell(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    yield ["busybox", "sh"] if request.param == "busybox" else ["sh"]


def words(line: str, shell: list[str] | None = None) -> list[str]:
    """The words that a shell gives to curl."""
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{line}\n"
    environ = {"ACME_API_KEY": KEY, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*(shell or ["sh"]), "-c", script], env=environ, capture_output=True, check=True)
    assert not done.stderr
    return done.stdout.decode().split("\0")[:-1]


def body(call: Call) -> str:
    """What a shell gives to curl as the body."""
    given = words(curl(call))
    return given[given.index("--data-raw") + 1]


def posted(told: Any) -> Call:
    return Call("POST", URL, JSON, json.dumps(told).encode())


def test_a_read_is_its_address_and_its_key_is_a_variable_that_the_shell_fills_in(shell: list[str]) -> None:
    line = curl(Call("GET", URL, {"authorization": f"Bearer {KEY}", "accept": "*/*", "host": "x"}, b""))
    assert line == f"""curl -sS '{URL}' -H "Authorization: Bearer $ACME_API_KEY\""""
    assert words(line, shell) == ["-sS", URL, "-H", f"Authorization: Bearer {KEY}"]


@pytest.mark.parametrize(
    "text", ["it's", 'say "hi"', "$HOME `id` $(id) \\ !!", "a\nb\ttab", "ü€😀", "@file", " "]
)
def test_a_shell_gives_any_body_to_curl_as_it_was_sent(shell: list[str], text: str) -> None:
    for content, kind in ((json.dumps({"name": text}), JSON), (text, {"Content-Type": "text/plain"})):
        line = curl(Call("POST", URL, {**kind, "Authorization": f"Bearer {KEY}"}, content.encode()))
        given = words(line, shell)
        assert given[:4] == ["-sS", "-X", "POST", URL]
        assert given[-2:] == ["--data-raw", content]


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(max_size=5).map("f{}".format), st.text(max_size=30) | st.floats(allow_nan=False)),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)
def test_whatever_is_in_it_arrives(fields: dict[str, Any], text: str) -> None:
    redact.add(KEY, "ACME_API_KEY")
    document = {
        **{f"n{number}": value for number, value in enumerate(fields.values())},
        "with": f"{text}{KEY}{text}",
    }
    assert json.loads(body(posted(document))) == document


def test_a_request_without_a_body_is_sent_without_one_and_with_its_length_if_it_had_one() -> None:
    assert words(curl(Call("DELETE", URL, {}, b""))) == ["-sS", "-X", "DELETE", URL]
    assert words(curl(Call("GET", URL, {"content-length": "0"}, b""))) == ["-sS", URL]
    assert words(curl(Call("HEAD", URL, {}, b""))) == ["-sS", "-I", URL]
    given = words(curl(Call("POST", URL, {"content-length": "0"}, b"")))
    assert given == ["-sS", "-X", "POST", URL, "-H", "Content-Type:", "--data-raw", ""]


def test_brackets_in_an_address_are_no_pattern() -> None:
    assert "-g" in words(curl(Call("GET", f"{URL}?filter[name]={{a,b}}", {}, b"")))


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("Bearer ya29.not-known-to-us", "Authorization: Bearer <hidden>"),
        ("AWS4-HMAC-SHA256 Credential=AKIA1/2, Signature=abc", "Authorization: AWS4-HMAC-SHA256 <hidden>"),
        ("alone", "Authorization: <hidden>"),
        (f"Bearer {KEY}", f"Authorization: Bearer {KEY}"),
        (KEY, f"Authorization: {KEY}"),
    ],
)
def test_a_header_shows_its_scheme_and_no_secret_but_by_its_variable(header: str, shown: str) -> None:
    line = curl(Call("GET", URL, {"Authorization": header}, b""))
    assert words(line)[-1] == shown
    assert header.rpartition(" ")[2] not in line


@pytest.mark.parametrize("name", ["X-Api-Key", "Cookie", "X-Amz-Security-Token"])
def test_other_headers_that_carry_secrets_are_hidden_whole(name: str) -> None:
    assert words(curl(Call("GET", URL, {name: "one=two; three=four"}, b"")))[-1] == f"{name}: <hidden>"


def test_secrets_in_an_address_are_hidden_and_what_is_beside_them_stays() -> None:
    query = f"page=2&api_key={KEY}&sig=abc%2Fdef&X-Amz-Signature=0f0f&name=a%20b"
    line = curl(Call("GET", f"https://ann:hunter22@api.acme.example/v1?{query}", {}, b""))
    address = words(line)[1]
    assert address.startswith("https://api.acme.example/v1?page=2&api_key=")
    assert address.endswith("&sig=<hidden>&X-Amz-Signature=<hidden>&name=a%20b")
    assert not [secret for secret in ("hunter22", "0f0f", "abc%2Fdef", KEY) if secret in line]


def test_a_secret_that_is_written_otherwise_than_its_variable_is_hidden() -> None:
    line = curl(Call("GET", f"{URL}?{urlencode({'of': KEY})}", {}, b""))
    assert words(line)[1] == f"{URL}?of=<hidden>"


def test_fields_that_say_that_they_are_secret_are_hidden_and_public_keys_and_our_tags_stay() -> None:
    sent = {
        "password": "hunter22",
        "user_data": "#cloud-config",
        "customData": "I2Nsb3VkLWNvbmZpZw==",
        "env": [{"key": "HF_TOKEN", "value": "hf_abc"}, {"name": "COLOUR", "value": "blue"}],
        "tags": [{"key": "gpucloud-token", "value": "gc-1"}, {"Key": "gpucloud-name", "Value": "x"}],
        "metadata": {"gpucloud-token": "gc-1"},
        "ssh_key": PUBLIC,
        "ssh_keys": [PUBLIC, PUBLIC],
        "ssh_key_names": ["ann"],
        "keys": ["not public"],
        "disable_password": True,
        "token": None,
    }
    hidden = {"password": "<hidden>", "user_data": "<hidden>", "customData": "<hidden>", "keys": "<hidden>"}
    env = [{"key": "HF_TOKEN", "value": "<hidden>"}, {"name": "COLOUR", "value": "blue"}]
    assert json.loads(body(posted(sent))) == {**sent, **hidden, "env": env}


def test_a_key_that_a_field_has_is_written_as_its_variable() -> None:
    line = curl(posted({"api_key": KEY, "text": f"by {KEY}"}))
    assert KEY not in line
    assert line.count("$ACME_API_KEY") == 2
    assert json.loads(words(line)[-1]) == {"api_key": KEY, "text": f"by {KEY}"}


def packed(text: str, depth: int) -> str:
    data = text.encode()
    for _ in range(depth):
        data = base64.b64encode(data)
    return data.decode()


@pytest.mark.parametrize(
    "script",
    [
        PEM,
        f"echo {packed(PEM, 1)} | base64 -d",
        f"echo {packed(f'install {packed(PEM, 1)}', 1)}",
        base64.b64encode(gzip.compress(PEM.encode())).decode(),
        base64.urlsafe_b64encode(f"???>>>{PEM}".encode()).decode().rstrip("="),
        f"write /etc/ssh/{packed(PEM, 1)}",
        f"export A={packed(f'{KEY} is it, and more to be long enough', 1)}",
    ],
    ids=["plain", "base64", "twice", "gzip", "url", "glued", "known"],
)
@pytest.mark.parametrize("kind", [JSON, FORM, {"Content-Type": "text/plain"}], ids=["json", "form", "text"])
def test_a_private_key_is_found_however_a_start_script_has_packed_it(
    kind: dict[str, str], script: str
) -> None:
    sent = {"name": "box", "start": script}
    text = json.dumps(sent) if kind is JSON else urlencode(sent) if kind is FORM else script
    line = curl(Call("POST", URL, kind, text.encode()))
    assert "<hidden>" in line
    assert "b3Blbn" not in line
    runs = [part for part in script.replace("/", " ").split() if len(part) >= 40 and "-----" not in part]
    assert not [run for run in runs if run in line]


def test_long_words_that_hold_no_secret_stay() -> None:
    told = {"image": "a" * 64, "digest": packed("nothing that has to be hidden from anybody at all", 1)}
    assert json.loads(body(posted(told))) == told


def test_fields_of_a_form_are_hidden_and_pairs_read_as_such() -> None:
    fields = [
        ("Action", "RunInstances"),
        ("UserData", "abcdef"),
        ("assertion", "ey.J.z"),
        ("Tag.1.Key", "gpucloud-token"),
        ("Tag.1.Value", "gc-1"),
        ("Tag.2.Key", "Secret"),
        ("Tag.2.Value", "s3cr3t"),
        ("empty", ""),
    ]
    shown = dict(fields) | {"UserData": "<hidden>", "assertion": "<hidden>", "Tag.2.Value": "<hidden>"}
    assert dict(parse_qsl(body(Call("POST", URL, FORM, urlencode(fields).encode())), True)) == shown


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b"])
def test_what_is_no_text_is_not_shown(content: bytes) -> None:
    assert body(Call("PUT", URL, {}, content)) == "<hidden>"


def test_a_longer_secret_that_begins_like_one_with_a_variable_leaves_nothing() -> None:
    redact.add(f"{KEY}-and-more")
    line = curl(Call("GET", URL, {"X-Note": f"it is {KEY}-and-more"}, b""))
    assert words(line)[-1] == "X-Note: it is <hidden>"
