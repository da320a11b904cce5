"""Our own SSH keys: the one we log in with, made once, and host keys to plant on new machines."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpucloud.errors import RemoteError
from gpucloud.provider import HostKeyPair

NAME: Final = "id_ed25519"


@dataclass(frozen=True, slots=True)
class Identity:
    """The key we log in with: the private file, and the line for ``authorized_keys``."""

    file: Path
    public: str


def identity(folder: Path) -> Identity:
    """Return our key, making it (ed25519, mode 0600) when there is none yet; two at once make one.

    One that others may read, as a copy from a backup is, is closed to them: ``ssh`` would refuse it.

    Raises:
        RemoteError: when it cannot be made, or the file is not a private key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    file = folder / NAME
    try:
        if not file.exists():
            _make(file)
        key = load_ssh_private_key(file.read_bytes(), None)
        if file.stat().st_mode & 0o077:
            # Where that is not ours to change it serves us all the same.
            with suppress(OSError):
                file.chmod(0o600)
    except OSError as error:
        raise RemoteError(
            "our SSH key cannot be used",
            why=f"{file}: {error.strerror}",
            hint=f"make {shlex.quote(str(folder))} a folder that you may write to",
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        old = shlex.quote(str(file))
        raise RemoteError(
            "our SSH key cannot be used",
            why=f"{file}: {error}",
            hint=f"mv {old} {old}.old; machines that are up know only that one",
        ) from error
    return Identity(file, _public_line(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)))


def ready(folder: Path) -> Path | None:
    """The file of our key where it is there and closed to others; what is in it is not looked at."""
    file = folder / NAME
    try:
        closed = not file.stat().st_mode & 0o077
    except OSError:
        return None
    return file if closed else None


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Such a file is ours alone from the start, and linking it puts it in place whole, or not at all.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as draft:
        draft.write(new_key_pair().private)
        draft.flush()
        os.fsync(draft.fileno())
        with suppress(FileExistsError):
            os.link(draft.name, file)


def new_key_pair() -> HostKeyPair:
    """Make an ed25519 key pair in OpenSSH's own formats."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return HostKeyPair(
        private, _public_line(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    )


def _public_line(public: bytes) -> str:
    return public.decode().strip()
