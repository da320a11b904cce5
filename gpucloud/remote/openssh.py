"""Our clusters for the system's own ``ssh``: a generated config and known_hosts, beside our key.

The user's ``~/.ssh/known_hosts``, keys and agent play no part in it.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpucloud.errors import ConfigError
from gpucloud.model import SshAddress


@dataclass(frozen=True, slots=True)
class Target:
    """One node: the name to ``ssh`` to, its address, the alias its key is pinned under, and that key.

    ``others`` are more names for it, ``control`` and ``jump_control`` the sockets of the connections that are
    shared.
    """

    name: str
    address: SshAddress
    alias: str
    host_key: str
    jump_key: str | None = None
    others: tuple[str, ...] = ()
    control: Path | None = None
    jump_control: Path | None = None


def write(folder: Path, identity: Path, targets: Iterable[Target], *, persist_s: int = 0) -> Path:
    """Write ``config`` and ``known_hosts`` into ``folder`` and return the config's path.

    Shared connections are left open for ``persist_s`` seconds after their last use.
    """
    blocks, keys = [], []
    known_hosts = folder / "known_hosts"
    for target in targets:
        keys.append(f"{target.alias} {target.host_key}\n")
        first = _sharing(target.control, persist_s)
        jump = target.address.jump
        if jump:
            hop = f"{target.alias}-jump"
            blocks.append(
                block(hop, jump, hop, identity, known_hosts, _sharing(target.jump_control, persist_s))
            )
            if target.jump_key:
                keys.append(f"{hop} {target.jump_key}\n")
            # ProxyJump would lead there by itself, but not where the name of the folder has a space.
            ours = shlex.quote(str(folder / "config")).replace("%", "%%")
            first.append(f"ProxyCommand ssh -F {ours} -W '[%h]:%p' {hop}")
        elif target.address.proxy:
            first.append(proxy_line(target.address))
        names = " ".join((target.name, *target.others))
        blocks.append(block(names, target.address, target.alias, identity, known_hosts, first))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _replace(known_hosts, "".join(keys).encode())
    _replace(folder / "config", "".join(blocks).encode())
    return folder / "config"


def _sharing(control: Path | None, persist_s: int) -> list[str]:
    if control is None or not persist_s:
        return []
    return ["ControlMaster auto", f"ControlPath {_quoted(control)}", f"ControlPersist {persist_s}"]


def block(
    name: str, address: SshAddress, alias: str, identity: Path, known_hosts: Path, first: Iterable[str]
) -> str:
    """The settings for one host; the lines of ``first`` overrule the others.

    Raises:
        ConfigError: when the address would be read as settings.
    """
    key = Path(address.identity_file).expanduser() if address.identity_file else identity
    lines = [
        *first,
        f"HostName {_word(address.host).replace('%', '%%')}",
        f"Port {address.port}",
        f"User {_word(address.user)}",
        f"IdentityFile {_quoted(key)}",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"HostKeyAlias {alias}",
        f"UserKnownHostsFile {_quoted(known_hosts)}",
        "GlobalKnownHostsFile /dev/null",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "ServerAliveInterval 15",
        "ServerAliveCountMax 3",
    ]
    return f"Host {name}\n" + "".join(f"  {line}\n" for line in lines) + "\n"


def proxy_line(address: SshAddress) -> str:
    """The setting for the command that makes the connection to an address. Raises ``ConfigError``."""
    if not all(word.isprintable() for word in address.proxy):
        raise _unfit(" ".join(address.proxy))
    command = re.sub("%(?![hp])", "%%", shlex.join(address.proxy))
    return f"ProxyCommand {command}"


def _word(text: str) -> str:
    # What a provider tells must not become a setting of its own.
    if not re.fullmatch(r"[^\s\"'\\#=-][^\s\"'\\]*", text) or not text.isprintable():
        raise _unfit(text)
    return text


def _unfit(text: str) -> ConfigError:
    return ConfigError(
        f"{text!r} cannot be used in an SSH address",
        why="it has spaces or other marks that are not expected there",
        hint="gpucloud ps --refresh",
    )


def _quoted(path: Path) -> str:
    # ssh expands %-sequences and ends a word at a space.
    return '"' + re.sub(r'(["\\])', r"\\\1", str(path)).replace("%", "%%") + '"'


def _replace(file: Path, text: bytes, mode: int = 0o600) -> None:
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(text)
            os.fchmod(descriptor, mode)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink()
        raise


INCLUDE_NOTE: Final = "# gpucloud: `ssh NAME` works for its clusters"
_OURS: Final = re.compile(
    rb"^" + re.escape(INCLUDE_NOTE.encode()) + rb"\r?\nInclude [^\n]*\n\n?", re.MULTILINE
)


def install_include(user_config: Path, ours: Path) -> bool:
    """Put one Include line at the top of the user's own config; ``False`` when it is there already.

    One that led to another place is replaced.

    Raises:
        ConfigError: when the config cannot be read or written.
    """
    line = f"Include {_globbed(ours)}".encode()
    try:
        user_config.parent.mkdir(mode=0o700, exist_ok=True)
        text = user_config.read_bytes() if user_config.exists() else b""
        if line in text.splitlines():
            return False
        mode = stat.S_IMODE(user_config.stat().st_mode) if user_config.exists() else 0o600
        # A symlinked config, as dotfile managers make it, stays a symlink.
        _replace(
            user_config.resolve(),
            b"%s\n%s\n\n%s" % (INCLUDE_NOTE.encode(), line, _OURS.sub(b"", text)),
            mode,
        )
    except OSError as error:
        raise ConfigError(
            f"{user_config} cannot be changed",
            why=error.strerror or str(error),
            hint=f"put this line at its top: {line.decode()}",
        ) from error
    return True


def remove_include(user_config: Path) -> bool:
    """Take the line of ``install_include`` out again; ``False`` when there is none.

    Raises:
        ConfigError: when the config cannot be read or written.
    """
    try:
        text = user_config.read_bytes() if user_config.exists() else b""
        rest = _OURS.sub(b"", text)
        if rest == text:
            return False
        _replace(user_config.resolve(), rest, stat.S_IMODE(user_config.stat().st_mode))
    except OSError as error:
        raise ConfigError(
            f"{user_config} cannot be changed",
            why=error.strerror or str(error),
            hint=f"delete the line {INCLUDE_NOTE!r} and the one below it",
        ) from error
    return True


def _globbed(path: Path) -> str:
    # An Include is a glob, in which some versions of ssh expand %-sequences and others do not.
    return '"' + re.sub(r'[][*?%"\\]', "?", str(path)) + '"'
