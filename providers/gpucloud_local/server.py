"""The process behind one local instance: ``python -m gpucloud_local.server FOLDER``.

It detaches itself, answers SSH on a loopback port, and ends the instance when it is told to (SIGTERM), when
the instance expires, or when its market takes it back.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from gpucloud_local.api import (
    MARKER,
    PASSED_ON,
    Ended,
    Spec,
    Status,
    delete,
    kill_processes,
    publish,
    remove,
    username,
)

NOTICE: Final = ".interruption-notice"
"""The file in HOME that announces an interruption."""

Reason = Literal["terminated", "expired", "interrupted"]


def main() -> None:
    """Detach, take the instance's lock, and serve until it is over; status 0 once the lock is held."""
    folder = Path(sys.argv[1])
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os._exit(0 if os.read(ready, 1) else 1)
    # An order to end must wait until it can be obeyed: by default it would leave everything lying about.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Whoever finds the lock held reads this.
    (folder / "pid").write_text(str(os.getpid()))
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    spec = Spec.model_validate_json((folder / "spec.json").read_bytes())
    os.chdir(folder / "home")
    os.write(told, b"!")
    os.close(told)
    asyncio.run(serve(folder, spec))


async def serve(folder: Path, spec: Spec) -> None:
    """Boot, answer, and clean up at the end; an ending that nobody asked for leaves a tombstone."""
    over: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()

    def end(reason: Reason) -> None:
        if not over.done():
            over.set_result(reason)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end, "terminated")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _at(spec.expires_at, end, "expired")
    if spec.interrupt_after_s is not None:
        taken_back = spec.created_at + timedelta(seconds=spec.interrupt_after_s)
        _at(taken_back - timedelta(seconds=spec.notice_s), (folder / "home" / NOTICE).touch)
        _at(taken_back, end, "interrupted")

    boot = asyncio.create_task(_boot(folder, spec))
    waiting = asyncio.ensure_future(over)
    await asyncio.wait((boot, waiting), return_when=asyncio.FIRST_COMPLETED)
    if boot.done():
        boot.result()
    reason = await waiting
    boot.cancel()
    while kill_processes(folder, server=os.getpid()):
        await asyncio.sleep(0.01)
    if reason == "terminated":
        remove(folder)
    else:
        publish(folder / "ended.json", Ended(reason=reason, at=datetime.now(UTC)))
        delete(folder / "home")


def _at(moment: datetime | None, action: Callable[..., None], *arguments: object) -> None:
    if moment is not None:
        delay = max(0.0, (moment - datetime.now(UTC)).total_seconds())
        asyncio.get_running_loop().call_later(delay, action, *arguments)


async def _boot(folder: Path, spec: Spec) -> None:
    await asyncio.sleep(spec.boot_s)
    if spec.dead:
        return
    if spec.sshd == "openssh":
        from gpucloud_local.sshd_openssh import listen
    else:
        from gpucloud_local.sshd_asyncssh import listen
    port, host_key = await listen(folder, session_environment(folder))
    publish(folder / "status.json", Status(port=port, host_key=host_key))


def session_environment(folder: Path) -> dict[str, str]:
    """What every command in the instance starts with."""
    user = username()
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": str(folder / "home"),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        MARKER: str(folder.resolve()),
    }


if __name__ == "__main__":
    main()
