"""What must never be shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.redact import HIDDEN, SHORTEST, hide, is_secret, scrub

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "X-Auth-Token", "Set-Cookie", "api_key", "API-Key", "apikey", "ssh_private_key",
        "password", "passwd", "passphrase", "credentials", "client_secret", "user_data",
        "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "userData", "UserData", "key\nname",
    ],
)  # fmt: skip
def test_a_name_that_says_so_is_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["public_key", "ssh_public_key", "PublicKey", "region", "host", "name", ""])
def test_other_names_and_public_keys_are_not_secret(name: str) -> None:
    assert not is_secret(name)


def test_secret_fields_are_hidden_and_all_others_stay() -> None:
    fields = {
        "name": "box",
        "password": "hunter22",
        "public_key": "ssh-ed25519 AAAA",
        "disk": 40,
        "token": None,
    }
    assert hide(fields) == {**fields, "password": HIDDEN, "token": HIDDEN}


@pytest.mark.parametrize("label", ["key", "name"])
def test_the_value_of_a_variable_that_is_named_beside_it_is_hidden(label: str) -> None:
    shown = hide({label: "HF_TOKEN", "value": "hf_abcdef"})
    assert shown["value"] == HIDDEN
    assert hide({"name": "COLOUR", "value": "blue"}) == {"name": "COLOUR", "value": "blue"}


def test_as_an_object_hook_it_hides_at_every_depth() -> None:
    document = json.dumps(
        {"env": [{"key": "API_KEY", "value": "s3cr3t-one"}], "a": {"b": {"token": "s3cr3t"}}}
    )
    assert "s3cr3t" not in json.dumps(json.loads(document, object_hook=hide))


def test_a_secret_that_was_carried_is_taken_out_of_a_text() -> None:
    carried = [("Authorization", "Bearer abc123xyz"), ("Accept", "text/html")]
    assert scrub("sent abc123xyz for text/html", carried) == f"sent {HIDDEN} for text/html"


def test_short_values_stay_because_they_are_words_of_every_language() -> None:
    assert scrub("it was on", [("token", "on")]) == "it was on"
    assert len("abcde") < SHORTEST
    assert scrub("abcde abcdef", [("token", "abcde"), ("key", "abcdef")]) == f"abcde {HIDDEN}"


@pytest.mark.parametrize("order", [1, -1])
def test_a_secret_that_begins_like_another_leaves_nothing_of_it(order: int) -> None:
    carried = [("token", "abcdefgh"), ("secret", "abcdefghijklmn")][::order]
    assert scrub("abcdefghijklmn abcdefgh", carried) == f"{HIDDEN} {HIDDEN}"


def test_spaces_around_a_secret_do_not_save_it() -> None:
    assert scrub("it is abcdefgh", [("Authorization", "Bearer abcdefgh ")]) == f"it is {HIDDEN}"


@given(st.lists(st.text("abcXYZ019-_", min_size=SHORTEST, max_size=20), max_size=5), st.text(max_size=40))
def test_no_carried_secret_is_left_in_any_text(secrets: list[str], around: str) -> None:
    text = around.join(["", *secrets, ""])
    left = scrub(text, [("token", secret) for secret in secrets]).replace(HIDDEN, "\0")
    assert not [secret for secret in secrets if secret in left]


@pytest.mark.parametrize("text", [PEM, f"before\n{PEM}\nafter", PEM[:60], PEM.replace("OPENSSH ", "")])
def test_a_private_key_is_hidden_whole_or_cut_off(text: str) -> None:
    shown = scrub(text, [])
    assert "b3Blbn" not in shown and "AAAA" not in shown
    assert HIDDEN in shown
    assert ("before" in shown, "after" in shown) == ("before" in text, "after" in text)


def test_two_private_keys_are_hidden_and_what_is_between_them_stays() -> None:
    assert scrub(f"{PEM} middle {PEM}", []) == f"{HIDDEN} middle {HIDDEN}"


def test_a_public_key_is_shown() -> None:
    assert scrub("-----BEGIN PUBLIC KEY-----\nAAAA", []) == "-----BEGIN PUBLIC KEY-----\nAAAA"
