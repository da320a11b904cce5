"""What looks like a secret, and what does not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gpucloud.jobs.warn import MOST, of_tree, rule_for, spelled
from gpucloud.model import Event
from gpucloud.remote.ignore import GPUCLOUDIGNORE
from gpucloud.remote.suspects import LARGEST, suspects
from gpucloud.remote.tree import scan

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
RSA = PRIVATE.replace("OPENSSH", "RSA")
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
TOKEN = "hf_" + "a1B2" * 8

SECRETS = {
    ".env": "API_KEY=abc\n",
    "web/.env.local": "# ours\nexport NAME='value'\n",
    ".env.production": "A: b\n",
    "prod.env": "A=b\n",
    ".envrc": "export AWS_SECRET_ACCESS_KEY=abc\n",
    "server.pem": CERTIFICATE + RSA,
    "keys/tls.key": "-----BEGIN PRIVATE KEY-----\n",
    "encrypted.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
    "id_rsa": RSA,
    "id_ed25519": PRIVATE,
    "ID_RSA.bak": RSA,
    "putty.ppk": "PuTTY-User-Key-File-3: ssh-ed25519\n",
    "sign.asc": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
    "client.p12": "binary",
    ".aws/credentials": "[default]\naws_access_key_id = A\naws_secret_access_key = b\n",
    ".aws/config": "[default]\naws_session_token=b\n",
    ".netrc": "machine api.wandb.ai\n  login user\n  password abc\n",
    "kubeconfig": "users:\n- user:\n    client-key-data: abc\n",
    ".kube/config": "users:\n- user:\n    token: abc\n",
    "dev.kubeconfig": "users:\n- user:\n    token: abc\n",
    ".npmrc": "//registry.npmjs.org/:_authToken=npm_abc\n",
    ".pypirc": "[pypi]\nusername = __token__\npassword = pypi-abc\n",
    "gcp-service-account.json": '{"type": "x", "private_key": "-----BEGIN PRIVATE KEY-----\\n"}',
    "project-0123456789ab.json": '{"private_key": "-----BEGIN PRIVATE KEY-----\\n"}',
    "client_secret.json": '{"installed": {"client_secret": "GOCSPX-abc"}}',
    "kaggle.json": '{"username": "me", "key": "0123456789abcdef0123456789abcdef"}',
    ".docker/config.json": '{"auths": {"ghcr.io": {"auth": "abc="}}}',
    ".git-credentials": "https://me:abc@github.com\n",
    "terraform.tfstate": '{"resources": []}',
    "infra/terraform.tfstate.backup": '{"resources": []}',
    "prod.tfvars": 'db_password = "abc"\n',
    "token": TOKEN + "\n",
    "huggingface/.hf_token": TOKEN,
    ".streamlit/secrets.toml": 'openai_api_key = "sk-abc"\n',
    ".modal.toml": '[me]\ntoken_id = "ak"\ntoken_secret = "as-abc"\n',
    ".htpasswd": "me:$apr1$abc\n",
}

HARMLESS = {
    ".env.example": "API_KEY=abc\n",
    ".env.sample": "API_KEY=abc\n",
    "deploy/.env.template": "API_KEY=abc\n",
    "example.env": "API_KEY=abc\n",
    ".env": '# nothing yet\nAPI_KEY=\nOTHER=""\nHOME_OF_IT=$HOME\n',
    ".env/bin/python": "#!/bin/sh\n",
    ".environment": "A=b\n",
    ".envrc": "layout python\nexport TOKEN=$(pass show it)\n",
    "certs/ca.pem": CERTIFICATE,
    "id_rsa.pub": "ssh-rsa AAAA me@here\n",
    "id_ed25519.pub": "ssh-ed25519 AAAA me@here\n",
    "public.key": "-----BEGIN PUBLIC KEY-----\n",
    "slides.key": "PK\x03\x04",
    "release.asc": "-----BEGIN PGP SIGNATURE-----\n",
    "config": "lr: 0.1\ntoken: abc\n",
    "config.json": '{"auth": "abc"}',
    ".npmrc": "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\nalways-auth=true\n",
    "tokenizer.json": '{"key": "0123456789abcdef0123456789abcdef"}',
    "special_tokens_map.json": '{"bos_token": "<s>"}',
    "keyboard.json": '{"private_key": false}',
    "credentials.py": "password = 'abc'\n",
    "secrets.py": "token = 'abc'\n",
    "secrets.yaml": "api_key: ENC[AES256_GCM,data:abc]\n",
    "variables.tfvars": 'region = "eu"\n',
    "token": "",
    "kubeconfig.md": "How to write one.\n",
    "data.backup": "x",
}


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("name", SECRETS)
def test_what_holds_a_secret_is_suspect(tmp_path: Path, name: str) -> None:
    put(tmp_path, {name: SECRETS[name], "train.py": "print()\n"})
    (found,) = suspects(tmp_path, scan(tmp_path).sizes())
    assert found.path == name
    assert found.what


@pytest.mark.parametrize("name", HARMLESS)
def test_what_holds_none_is_not(tmp_path: Path, name: str) -> None:
    put(tmp_path, {name: HARMLESS[name]})
    assert suspects(tmp_path, scan(tmp_path).sizes()) == []


def test_a_folder_a_link_and_a_large_file_are_not_looked_into(tmp_path: Path) -> None:
    put(tmp_path, {"there/token": TOKEN, "large.pem": RSA + "x" * LARGEST})
    (tmp_path / "id_rsa").mkdir()
    (tmp_path / ".env").symlink_to("there/token")
    assert [suspect.path for suspect in suspects(tmp_path, scan(tmp_path).sizes())] == ["there/token"]


def test_what_vanishes_meanwhile_is_no_matter(tmp_path: Path) -> None:
    put(tmp_path, {"id_rsa": RSA})
    tree = scan(tmp_path)
    (tmp_path / "id_rsa").unlink()
    assert suspects(tmp_path, tree.sizes()) == []
    os.mkfifo(tmp_path / "id_rsa")
    assert suspects(tmp_path, tree.sizes()) == []


def test_with_git_a_login_in_its_configuration_is_seen(tmp_path: Path) -> None:
    put(tmp_path, {".git/config": '[remote "origin"]\n\turl = https://me:ghp_abc@github.com/me/it\n'})
    assert suspects(tmp_path, scan(tmp_path).sizes()) == []
    assert [s.path for s in suspects(tmp_path, scan(tmp_path, git=True).sizes())] == [".git/config"]


def told(root: Path, *extra: str) -> list[str]:
    lines: list[Event] = []
    of_tree(lines.append, str(root), scan(root, extra=extra), extra)
    return [f"{event.kind}: {event.message}" for event in lines]


ODD = [
    "a b/.env",
    "#/.env",
    "!/.env",
    "*/.env",
    "[x]/.env",
    "back\\slash/.env",
    "'/\".env",
    "\n/.env",
    "é\x1b[2J/.env",
]


@pytest.mark.parametrize("name", [".env", *ODD])
@pytest.mark.parametrize("before", [None, "data/", "data/\n"])
@pytest.mark.parametrize("purpose", ["to leave it here", "to send it without a word"])
def test_the_hints_can_be_pasted_and_silence_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, before: str | None, purpose: str
) -> None:
    root = tmp_path / "my project"
    put(root, {name: "A=b\n", "other/.env.example": "A=b\n"})
    if before is not None:
        put(root, {GPUCLOUDIGNORE: before})
    monkeypatch.chdir(tmp_path)
    warning, *hints = told(root)
    assert warning == f"warning: {spelled(name)} looks like variables with secrets, and is sent"
    assert all(line.isprintable() for line in [warning, *hints])
    (command,) = [hint.partition(f"{purpose}: ")[2] for hint in hints if purpose in hint]
    subprocess.run(["sh", "-c", command], check=True)
    assert told(root) == []
    sent = name in {entry.path for entry in scan(root).entries}
    assert sent == (purpose == "to send it without a word")


def test_many_are_counted(tmp_path: Path) -> None:
    put(tmp_path, {f"{number}/.env": "A=b\n" for number in range(MOST + 2)})
    lines = told(tmp_path)
    assert [line.split(":")[0] for line in lines] == ["warning"] * (MOST + 1) + ["hint"] * 2
    assert lines[MOST] == "warning: and 2 more like these"


def test_what_was_asked_for_by_name_is_no_surprise(tmp_path: Path) -> None:
    put(
        tmp_path, {".env": "A=b\n", "keys/id_rsa": RSA, ".gitignore": ".env*\n!.env.ci\n", ".env.ci": "A=b\n"}
    )
    assert [line for line in told(tmp_path, ".env") if line.startswith("warning")] == [
        "warning: keys/id_rsa looks like a private key, and is sent"
    ]
    assert told(tmp_path, ".env", "keys/*") == []


def test_a_rule_for_a_path_is_for_that_path_alone() -> None:
    assert rule_for("a/.env") == "/a/.env"
    assert rule_for("a*b [c]\\ ") == "/a\\*b \\[c]\\\\\\ "
