"""The user's machines as configured, and who has taken them: the vendor's API of this adapter."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from filelock import FileLock
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from gpucloud.model import Gpu, GpuWish, SshAddress


class Gpus(BaseModel):
    """Which GPU a machine has, and how many."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    gpu: Gpu
    count: int


def _gpus(text: object) -> Gpus:
    wish = GpuWish.parse(text) if isinstance(text, str) else None
    if wish is None or wish.gpu is None:
        raise ValueError(f"{text!r} names no GPU; write H100-SXM-80 or RTX4090:2")
    return Gpus(gpu=wish.gpu, count=wish.count)


def _exact(number: object) -> object:
    """A float of the file as it is written there."""
    return str(number) if isinstance(number, float) else number


def _address(text: str) -> str:
    if not re.fullmatch(r"[^-\s@/\[\]][^\s@/\[\]]*", text) or text.count(":") == 1:
        raise ValueError("write the name or the address alone; user and port are settings of their own")
    return text


def _jump(text: str, user: str = "", identity_file: str | None = None) -> SshAddress:
    match = re.fullmatch(
        r"(?:([^@\s]+)@)?(?:([^-@:/,\s\[\]][^@:/,\s\[\]]*)|\[([0-9A-Fa-f:.]+)\])(?::(\d+))?", text
    )
    if match is None or not 0 < int(match[4] or 22) < 65536:
        raise ValueError("write user@host:port, where user and port may be left out, or user@[IPv6]:port")
    return SshAddress(match[2] or match[3], int(match[4] or 22), match[1] or user, identity_file)


def _checked_jump(text: str) -> str:
    _jump(text)
    return text


def _host_key(text: str) -> str:
    kind, _, blob = " ".join(text.split()[:2]).partition(" ")
    try:
        named = base64.b64decode(blob, validate=True)[4 : 4 + len(kind)]
    except binascii.Error:
        named = b""
    if not kind or named != kind.encode():
        raise ValueError("write the public line of the key without the host's name: ssh-ed25519 AAAA...")
    return f"{kind} {blob}"


class Host(BaseModel):
    """One table ``[providers.ssh.hosts.NAME]``; ``jump`` is ``user@host:port``, ``gpu`` as in ``--gpu``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    address: Annotated[str, AfterValidator(_address)]
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(default="root", pattern=r"^\S+$")
    identity_file: str | None = Field(default=None, min_length=1)
    jump: Annotated[str, AfterValidator(_checked_jump)] | None = None
    host_key: Annotated[str, AfterValidator(_host_key)] | None = None
    gpu: Annotated[Gpus | None, BeforeValidator(_gpus)] = None
    usd_per_hour: Annotated[Decimal, BeforeValidator(_exact)] = Field(default=Decimal(0), ge=0, strict=False)
    slots: int = Field(default=1, ge=1)
    vcpus: int | None = Field(default=None, ge=1)
    memory_gib: Annotated[Decimal, BeforeValidator(_exact)] | None = Field(default=None, gt=0, strict=False)
    disk_gib: Annotated[Decimal, BeforeValidator(_exact)] | None = Field(default=None, gt=0, strict=False)
    region: str | None = None

    @property
    def ssh(self) -> SshAddress:
        """Where to connect, over the jump host if there is one."""
        jump = _jump(self.jump, self.user, self.identity_file) if self.jump else None
        return SshAddress(self.address, self.port, self.user, self.identity_file, jump)


class Settings(BaseModel):
    """The table ``[providers.ssh]``."""

    model_config = ConfigDict(extra="forbid")

    hosts: dict[Annotated[str, Field(min_length=1)], Host] = {}


class Claim(BaseModel):
    """Who has taken a slot of a machine."""

    host: str
    token: str
    cluster: str
    rank: int
    owner: str
    created_at: AwareDatetime
    usd_per_hour: Decimal


class Claims:
    """One file for each slot that is taken, named by its token; slots are counted and taken under a lock.

    Raises ``OSError`` from every method when the files cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "claims"

    def all(self) -> Iterator[Claim]:
        """Every slot that is taken."""
        for file in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            try:
                if file.suffix == ".json":
                    yield Claim.model_validate_json(file.read_bytes())
            except FileNotFoundError:
                continue
            except ValueError as error:
                raise OSError(f"{file} is damaged") from error

    def by_token(self, token: str) -> Claim | None:
        """The slot that a rental has."""
        return next((claim for claim in self.all() if claim.token == token), None)

    def take(self, wanted: Claim, slots: int) -> Claim | None:
        """Take one of so many slots; the one its token has already, or ``None`` when others have them all."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self._folder / ".lock"):
            taken = list(self.all())
            for claim in taken:
                if claim.token == wanted.token:
                    return claim
            if sum(claim.host == wanted.host for claim in taken) >= slots:
                return None
            draft = self._folder / ".draft"
            draft.write_text(wanted.model_dump_json())
            draft.replace(self._file(wanted.token))
        return wanted

    def release(self, token: str) -> None:
        """Give the slot of a rental back."""
        self._file(token).unlink(missing_ok=True)

    def _file(self, token: str) -> Path:
        return self._folder / f"{quote(token, safe='')}.json"
