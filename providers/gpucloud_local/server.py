"""The process behind one local instance: ``python -m gpucloud_local.server FOLDER``.

It detaches itself, answers SSH on a loopback port, and ends the instance when it is told to (SIGTERM), when
the instance expires, or when its market takes it back. An instance that is told to stop keeps its files, and
its next server goes on with them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from gpucloud_local.api import ASKED, ENDED, STOPPED, Ended, Spec, Status, delete, publish, remove, username
from gpucloud_local.orders import expiry
from gpucloud_local.processes import MARKER, PASSED_ON, kill_processes

NOTICE: Final = ".interruption-notice"
"""The file in HOME that announces an interruption."""

LOOK_S: Final = 0.5
"""How often the server looks whether there are orders."""

LAST_ORDERS_S: Final = 0.01
"""Long enough to hear of a signal that was sent before."""

Reason = Literal["terminated", "expired", "interrupted", "stopped"]


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
    (folder / "status.json").unlink(missing_ok=True)
    (folder / STOPPED).unlink(missing_ok=True)
    # Standard input is the gate, through which others may come now.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder / "home")
    os.write(told, b"!")
    os.close(told)
    asyncio.run(serve(folder, spec))


async def serve(folder: Path, spec: Spec) -> None:
    """Boot, answer, and clean up at the end; an ending that nobody asked for leaves a tombstone."""
    reasons: set[Reason] = set()
    over = asyncio.Event()

    def end(reason: Reason) -> None:
        reasons.add(reason)
        over.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end, "terminated")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    heeding = asyncio.create_task(_heed(folder, spec, end))
    interrupting = asyncio.create_task(_interrupt(folder, spec, end))
    if spec.queue_s > spec.wait_s:
        asyncio.get_running_loop().call_later(spec.wait_s, end, "expired")

    boot = asyncio.create_task(_boot(folder, spec))
    waiting = asyncio.create_task(over.wait())
    await asyncio.wait((boot, waiting), return_when=asyncio.FIRST_COMPLETED)
    if boot.done():
        boot.result()
    await waiting
    boot.cancel()
    await _quiet(folder)
    heeding.cancel()
    interrupting.cancel()
    if reasons == {"stopped"}:
        (folder / "status.json").unlink(missing_ok=True)
        return
    if "terminated" not in reasons:
        reason: Literal["expired", "interrupted"] = "expired" if "expired" in reasons else "interrupted"
        publish(folder / ENDED, Ended(reason=reason, at=datetime.now(UTC)))
        # Whoever told us to end it before this could be seen relies on us; later ones see to it themselves.
        await asyncio.sleep(LAST_ORDERS_S)
        await _quiet(folder)
        delete(folder / "home")
    if "terminated" in reasons:
        remove(folder)


async def _heed(folder: Path, spec: Spec, end: Callable[[Reason], None]) -> None:
    expires_at = spec.expires_at
    while True:
        if (folder / STOPPED).exists():
            end("stopped")
        # What cannot be read at the moment must not make it live for ever.
        with suppress(OSError):
            expires_at = expiry(folder, spec)
        left = (expires_at - datetime.now(UTC)).total_seconds() if expires_at else LOOK_S
        if left <= 0:
            end("expired")
        await asyncio.sleep(min(LOOK_S, max(left, 0.01)))


async def _interrupt(folder: Path, spec: Spec, end: Callable[[Reason], None]) -> None:
    """Announce and carry out the interruption that is in store for it, if there is one."""
    home, notice = folder / "home", timedelta(seconds=spec.notice_s)
    if spec.interrupt_at is None:
        return
    if spec.interrupt_at == "asked":
        while not (home / ASKED).exists():
            await asyncio.sleep(LOOK_S)
        taken_back = datetime.now(UTC) + notice
    else:
        taken_back = spec.created_at + timedelta(seconds=spec.interrupt_at)
    await _until(taken_back - notice)
    (home / NOTICE).touch()
    await _until(taken_back)
    end("interrupted")


async def _until(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


async def _quiet(folder: Path) -> None:
    """Kill all that runs in the instance, and wait until it is gone."""
    while kill_processes(folder, server=os.getpid()):
        await asyncio.sleep(0.01)


async def _boot(folder: Path, spec: Spec) -> None:
    # What a server before us left running, when it died, is not to go on in this one.
    await _quiet(folder)
    await _until(spec.starts_at)
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
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if (folder / "bin").is_dir():
        passed_on["PATH"] = f"{folder / 'bin'}:{passed_on.get('PATH', os.defpath)}"
    return {
        **passed_on,
        "HOME": str(folder / "home"),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        MARKER: str(folder.resolve()),
    }


if __name__ == "__main__":
    main()
