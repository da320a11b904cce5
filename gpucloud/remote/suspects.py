"""Files that look as if they held secrets: judged by name, and by content where the name is suspect."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LARGEST: Final = 65_536
"""No file of keys and tokens is larger; what is, is not read."""

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\APuTTY-User-Key-File")
_VALUE = rb"""[ \t]*[=:][ \t]*["']?(?!ENC\[|your|xxx|changeme)[^\s"'$<{#]"""
_ASSIGNED = re.compile(rb"(?im)^\s*(?:export\s+)?[a-z_][\w.]*" + _VALUE)
_SECRET_ASSIGNED = re.compile(
    rb"""(?im)(?:secret|token|passw(?:or)?d|api[_-]?key|access[_-]?key|_auth)[\w-]*["']?""" + _VALUE
)
_AWS = re.compile(rb"(?i)aws_(?:secret_access_key|session_token)\s*=\s*\S")
_KUBE = re.compile(rb"""(?m)client-key-data:\s*\S|^\s*(?:token|password):\s*["']?[^\s"']""")
_NETRC = re.compile(rb"\bpassword\s+\S")
_ADDRESS = re.compile(rb"://[^/\s:@]+:[^/\s@]+@")
_GOOGLE = re.compile(
    rb'"private_key"\s*:\s*"-----BEGIN|"(?:client_secret|refresh_token)"\s*:\s*"(?!your|xxx)[^"<$]'
)
_KAGGLE = re.compile(rb'"key"\s*:\s*"[0-9a-f]{32}"')
_DOCKER = re.compile(rb'"(?:auth|identitytoken)"\s*:\s*"[^"]')
_WORD = re.compile(rb"\A\s*[\w.=+/:-]{20,}\s*\Z")
_KEYISH = re.compile(
    rb"service|secret|credential|token(?!iz)|(?<!mon)key|oauth|adminsdk|-[0-9a-f]{12}\.json$"
)
_FORMATS: Final = (b"toml", b"yaml", b"yml", b"ini")
_NO_EXAMPLE = re.compile(
    rb"^(?!.*(?:^|[._-])(?:example|sample|template|tmpl|tpl|dist|defaults?|schema)(?:[._-]|$))"
)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A file that is about to be sent, by its path in the tree, and ``what`` it looks like."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files of such names, in one of these ``folders`` and with such ``content`` where these are given."""

    what: str
    content: re.Pattern[bytes] | None
    names: tuple[bytes, ...] = ()
    suffixes: tuple[bytes, ...] = ()
    prefixes: tuple[bytes, ...] = ()
    folders: tuple[bytes, ...] = ()
    like: re.Pattern[bytes] | None = None

    def is_in(self, path: bytes) -> bool:
        """Whether the folder of a file is one of those."""
        return not self.folders or path.lower().rpartition(b"/")[0].rpartition(b"/")[2] in self.folders


_KINDS: Final = (
    _Kind(
        "a private key",
        _PRIVATE_KEY,
        names=(b"identity",),
        suffixes=(b".pem", b".key", b".ppk", b".asc"),
        prefixes=(b"id_rsa", b"id_dsa", b"id_ecdsa", b"id_ed25519", b"ssh_host_"),
    ),
    _Kind("a key store", None, suffixes=(b".p12", b".pfx", b".jks", b".keystore", b".kdbx")),
    _Kind(
        "variables with secrets",
        _ASSIGNED,
        names=(b".env",),
        suffixes=(b".env",),
        prefixes=(b".env.", b".env-", b".env_"),
        like=_NO_EXAMPLE,
    ),
    _Kind(
        "variables with secrets",
        _SECRET_ASSIGNED,
        names=(b".envrc",),
        suffixes=(b".tfvars",),
        like=_NO_EXAMPLE,
    ),
    _Kind("AWS credentials", _AWS, names=(b"credentials",)),
    _Kind("AWS credentials", _AWS, names=(b"config",), folders=(b".aws",)),
    _Kind("logins", _NETRC, names=(b".netrc", b"_netrc", b"netrc")),
    _Kind(
        "access to a Kubernetes cluster",
        _KUBE,
        suffixes=(b".kubeconfig",),
        prefixes=(b"kubeconfig",),
    ),
    _Kind("access to a Kubernetes cluster", _KUBE, names=(b"config",), folders=(b".kube",)),
    _Kind(
        "the token of a package registry",
        _SECRET_ASSIGNED,
        names=(b".npmrc", b".pypirc", b".yarnrc.yml", b".condarc"),
    ),
    _Kind("the key of an account", _GOOGLE, suffixes=(b".json",), like=_KEYISH),
    _Kind("the key of an account", _KAGGLE, names=(b"kaggle.json",)),
    _Kind("logins", _DOCKER, names=(b"config.json",), folders=(b".docker",)),
    _Kind("logins", _ADDRESS, names=(b".git-credentials",)),
    _Kind("a login in an address", _ADDRESS, names=(b"config",), folders=(b".git",)),
    _Kind("a Terraform state", None, suffixes=(b".tfstate",)),
    _Kind("a Terraform state", None, suffixes=(b".backup",), like=re.compile(rb"\.tfstate\.")),
    _Kind(
        "a token",
        _WORD,
        names=(b"token", b"api_key", b".api_key", b"hf_token", b"wandb_api_key", b".vault-token"),
        suffixes=(b".token",),
        prefixes=(b".hf_token", b".huggingface_token", b".wandb_api_key"),
    ),
    _Kind(
        "a file of secrets",
        _SECRET_ASSIGNED,
        names=(
            *(b".secrets", b".modal.toml", b".comet.config", b".s3cfg", b".boto", b".my.cnf", b"rclone.conf"),
            *(b"secrets." + kind for kind in _FORMATS),
            *(b"credentials." + kind for kind in _FORMATS),
        ),
    ),
    _Kind("a file of secrets", None, names=(b".pgpass", b".htpasswd", b".dockercfg")),
)


def _by(field: str) -> dict[bytes, tuple[_Kind, ...]]:
    """The kinds that each of their names, suffixes or prefixes may mean."""
    words = {word for kind in _KINDS for word in getattr(kind, field)}
    return {word: tuple(kind for kind in _KINDS if word in getattr(kind, field)) for word in words}


_NAMES: Final = _by("names")
_SUFFIXES: Final = _by("suffixes")
_PREFIXES: Final = _by("prefixes")
_STARTS: Final = frozenset(word[:3] for word in _PREFIXES)
_ENDS: Final = frozenset(word[-4:] for word in (*_NAMES, *_SUFFIXES))


def suspects(root: Path, files: Iterable[tuple[bytes, int]]) -> list[Suspect]:
    """Name what looks as if it held secrets among regular files below ``root``: paths and sizes in bytes."""
    found = []
    for path, size in files:
        # So much is done for every file of every push, and nearly all of them are innocent by then.
        name = path[path.rfind(b"/") + 1 :].lower()
        if (name[-4:] in _ENDS or name[:3] in _STARTS) and size:
            kinds = _kinds(name, path)
            if kinds and (what := _judged(root / os.fsdecode(path), size, kinds)):
                found.append(Suspect(os.fsdecode(path), what))
    return found


def _kinds(name: bytes, path: bytes) -> list[_Kind]:
    """What a file may be by its name, in small letters, and by the folder that it is in."""
    kinds = _NAMES.get(name, ()) + _SUFFIXES.get(name[name.rfind(b".") :], ())
    if name[:3] in _STARTS:
        kinds += tuple(kind for word in _PREFIXES if name.startswith(word) for kind in _PREFIXES[word])
    return [kind for kind in kinds if kind.like is None or kind.like.search(name) if kind.is_in(path)]


def _judged(path: Path, size: int, kinds: Iterable[_Kind]) -> str:
    """What a file is, of all that it may be; empty when it is none of that."""
    content: bytes | None = None
    for kind in kinds:
        if kind.content is None:
            return kind.what
        if content is None:
            content = _content(path) if size <= LARGEST else b""
        if kind.content.search(content):
            return kind.what
    return ""


def _content(path: Path) -> bytes:
    """The content of a small file; nothing when it cannot be read, which a push tells by itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, LARGEST)
        finally:
            os.close(descriptor)
    except OSError:
        return b""
