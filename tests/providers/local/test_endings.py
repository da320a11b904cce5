"""How local instances end: with everything in them, and with nothing that is not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.errors import NotFound, Rejected
from gpucloud.model import Instance, InstanceRef, InstanceState, utcnow
from gpucloud.provider import MovesExpiry, Stops
from gpucloud.remote.keys import identity
from gpucloud_local import Local
from gpucloud_local.api import STARTING, TOMBSTONE, Ended, Spec, publish, read
from tests.harness.waiting import eventually
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, a_spec, an_offer, end, processes, rented, running

WAYS = {
    "in the background": "sleep {} >/dev/null 2>&1 </dev/null &",
    "with nohup": "nohup sleep {} >/dev/null 2>&1 </dev/null &",
    "in a session of its own": "setsid sleep {} >/dev/null 2>&1 </dev/null &",
    "forked twice": "(setsid sh -c 'sleep {} & exit 0' >/dev/null 2>&1 </dev/null &); exit 0",
    "deaf to signals": "(trap '' HUP TERM INT; exec sleep {}) >/dev/null 2>&1 </dev/null &",
    "below one that lost its environment": (
        "setsid sh -c 'env -i sleep {} & wait' >/dev/null 2>&1 </dev/null &"
    ),
    "below one in the foreground that lost it": "env -i sh -c 'sleep {} & wait'",
    "still in the foreground": "sleep {}",
}


@contextmanager
def bystander(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any instance."""
    with subprocess.Popen(["sleep", *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def marks(machine: Rented) -> dict[str, str]:
    """A number for each way to run in the background, by which its process is found: seconds to sleep."""
    base = 1_000_000 + int.from_bytes(machine.instance.ref.id.encode()[-4:], "big")
    return {way: f"{base}.{number}" for number, way in enumerate(WAYS, 1)}


@contextmanager
def all_started(machine: Rented) -> Iterator[dict[str, str]]:
    """A process runs in each of the ways; their marks."""
    chosen = marks(machine)
    with machine.builtin() as connection, ExitStack() as channels:
        for way, mark in chosen.items():
            channel = channels.enter_context(connection.open_channel())
            channel.exec_command(WAYS[way].format(mark))
        eventually(lambda: all(processes(mark) for mark in chosen.values()))
        yield chosen


def alive(started: dict[str, str]) -> set[str]:
    """The ways whose processes are there."""
    return {way for way, mark in started.items() if processes(mark)}


def server(machine: Rented) -> list[int]:
    """The process behind an instance."""
    return processes(str(machine.folder))


@pytest.mark.parametrize("sshd", BOTH)
def test_terminate_ends_every_process_and_removes_every_file(tmp_path: Path, sshd: str) -> None:
    provider = a_provider(tmp_path / "state", sshd)
    with (
        rented(provider, tmp_path) as machine,
        bystander("1000001.7") as innocent,
        all_started(machine) as started,
    ):
        assert (machine.folder / "home").is_dir()
        assert server(machine)
        end(provider, machine.instance)
        assert alive(started) == set()
        eventually(lambda: not server(machine))
        assert not machine.folder.exists()
        assert list((tmp_path / "state").iterdir()) == []
        assert innocent.poll() is None


def test_terminate_leaves_other_instances_alone(tmp_path: Path, local: Local) -> None:
    with (
        rented(local, tmp_path) as one,
        rented(local, tmp_path) as other,
        all_started(one),
        all_started(other) as started,
    ):
        end(local, one.instance)
        assert alive(started) == set(WAYS)
        assert other.say("echo still here") == "still here"
        assert [i.ref for i in local.instances()] == [other.instance.ref]


@pytest.mark.parametrize("sshd", BOTH)
def test_an_instance_whose_server_was_killed_is_failed_and_terminate_cleans_up(
    tmp_path: Path, sshd: str
) -> None:
    provider = a_provider(tmp_path / "state", sshd)
    with rented(provider, tmp_path) as machine, all_started(machine) as started:
        os.kill(int((machine.folder / "pid").read_text()), signal.SIGKILL)
        eventually(lambda: provider.get(machine.instance.ref).state is InstanceState.FAILED)
        (listed,) = provider.instances()
        assert (listed.state, listed.alive, listed.ssh) == (InstanceState.FAILED, True, None)
        # What hangs on the server's end of a pipe or a socket may go with it; the rest are orphans now.
        assert alive(started) >= set(list(WAYS)[:6])

        provider.terminate(machine.instance.ref)
        assert list(provider.instances()) == []
        assert alive(started) == set()
        assert not machine.folder.exists()


@contextmanager
def half_made(local: Local, age: timedelta) -> Iterator[Instance]:
    """What a launch leaves behind that was killed before it could start the server."""
    folder = local.settings.state_dir / "gc-half"
    (folder / "home").mkdir(parents=True)
    spec = Spec(
        token="gc-half",
        cluster="half",
        rank=0,
        owner="me",
        created_at=utcnow() - age,
        instance_type="this-machine",
        market="on-demand",
        usd_per_hour="0",
        region="local",
    )
    (folder / "spec.json").write_text(spec.model_dump_json())
    yield local.get(InstanceRef("gc-half"))
    shutil.rmtree(folder, ignore_errors=True)


def test_a_launch_killed_before_its_server_started_is_listed_and_can_be_terminated(local: Local) -> None:
    with half_made(local, timedelta(0)) as young:
        assert young.state is InstanceState.PENDING
    with half_made(local, STARTING) as old:
        assert old.state is InstanceState.FAILED
        assert [(i.ref, i.owner, i.cluster) for i in local.instances()] == [(old.ref, "me", "half")]
        local.terminate(old.ref)
        assert list(local.instances()) == []
        assert list(local.settings.state_dir.iterdir()) == []


def test_an_instance_whose_server_died_young_is_failed_at_once(local: Local) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with half_made(local, timedelta(0)) as instance:
        (local.settings.state_dir / instance.ref.id / "pid").write_text(str(os.getpid()))
        assert local.get(instance.ref).state is InstanceState.PENDING
        (local.settings.state_dir / instance.ref.id / "pid").write_text(str(process.pid))
        assert local.get(instance.ref).state is InstanceState.FAILED


def test_a_server_that_starts_while_its_instance_is_terminated_ends(local: Local, tmp_path: Path) -> None:
    with half_made(local, timedelta(0)) as instance:
        folder = local.settings.state_dir / instance.ref.id
        local.terminate(instance.ref)
    late = subprocess.run(
        [sys.executable, "-m", "gpucloud_local.server", str(folder)], check=False, capture_output=True
    )
    assert late.returncode == 1
    assert not folder.exists()


def test_terminating_one_instance_many_times_at_once_is_fine(local: Local, tmp_path: Path) -> None:
    with rented(local, tmp_path) as machine:
        program = (
            "import sys; from pathlib import Path\n"
            "from gpucloud.model import InstanceRef; from gpucloud.provider import ProviderSettings\n"
            "from gpucloud_local import Local\n"
            "Local(ProviderSettings('local', Path(sys.argv[1]))).terminate(InstanceRef(sys.argv[2]))\n"
        )
        words = [sys.executable, "-c", program, str(tmp_path / "state"), machine.instance.ref.id]
        everyone = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        assert [process.communicate() and process.returncode for process in everyone] == [0, 0, 0, 0]
        eventually(lambda: not list(local.instances()))


def test_terminate_right_after_launch_is_not_lost(local: Local, tmp_path: Path) -> None:
    key = identity(tmp_path)
    for _ in range(8):
        instance = local.launch(an_offer(local), a_spec(key))
        local.terminate(instance.ref)
        eventually(lambda: not list(local.instances()))
    eventually(lambda: not list(local.settings.state_dir.iterdir()))


@pytest.mark.parametrize("reference", ["", ".", "..", "../elsewhere", "a/b", "/etc"])
def test_what_is_no_id_leads_nowhere(local: Local, tmp_path: Path, reference: str) -> None:
    with rented(local, tmp_path) as machine:
        (tmp_path / "elsewhere").mkdir()
        local.terminate(InstanceRef(reference))
        with pytest.raises(NotFound):
            local.get(InstanceRef(reference))
        assert (tmp_path / "elsewhere").is_dir()
        assert machine.say("echo untouched") == "untouched"


def test_write_protected_folders_at_home_do_not_keep_it(tmp_path: Path, local: Local) -> None:
    keep = tmp_path / "keep"
    keep.mkdir(mode=0o755)
    (keep / "file").touch()
    with rented(local, tmp_path) as machine:
        machine.say(
            f"mkdir -p cache/inner && echo x >cache/inner/file && ln -s {keep} cache/link"
            " && chmod 555 cache/inner && chmod 000 cache"
        )
        end(local, machine.instance)
        assert not machine.folder.exists()
    assert (keep / "file").exists()
    assert keep.stat().st_mode & 0o777 == 0o755


def test_a_home_that_became_a_link_is_not_followed(tmp_path: Path, local: Local) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    with rented(local, tmp_path) as machine:
        machine.say(f'rm -r "$HOME" && ln -s {keep} "$HOME"')
        end(local, machine.instance)
        assert not machine.folder.exists()
    assert (keep / "file").exists()


def test_an_instance_expires_and_leaves_word_of_it(tmp_path: Path, local: Local) -> None:
    soon = utcnow() + timedelta(seconds=1.5)
    with rented(local, tmp_path, expires_at=soon) as machine, all_started(machine) as started:
        ended = eventually(
            lambda: i if (i := local.get(machine.instance.ref)).state == "terminated" else None
        )
        assert ended is not None
        assert utcnow() >= soon
        assert (ended.alive, ended.interrupted, ended.ssh) == (False, False, None)
        (word,) = [read(machine.folder).ended]
        assert word is not None
        assert word.reason == "expired"
        assert word.at >= soon
        eventually(lambda: not read(machine.folder).alive)
        assert not (machine.folder / "home").exists()
        assert alive(started) == set()
        assert [i.state for i in local.instances()] == [InstanceState.TERMINATED]

        publish(machine.folder / "ended.json", Ended(reason="expired", at=utcnow() - TOMBSTONE))
        assert list(local.instances()) == []
        assert not machine.folder.exists()


def test_an_instance_that_expired_can_be_terminated(tmp_path: Path, local: Local) -> None:
    instance = local.launch(an_offer(local), a_spec(identity(tmp_path), expires_at=utcnow()))
    eventually(lambda: local.get(instance.ref).state is InstanceState.TERMINATED)
    eventually(lambda: not read(local.settings.state_dir / instance.ref.id).alive)
    local.terminate(instance.ref)
    assert list(local.instances()) == []
    assert list(local.settings.state_dir.iterdir()) == []


@pytest.mark.parametrize("sshd", BOTH)
def test_an_expiry_can_be_moved_in_both_directions(tmp_path: Path, sshd: str) -> None:
    provider = a_provider(tmp_path / "state", sshd)
    later = utcnow() + timedelta(hours=1)
    with (
        rented(provider, tmp_path, expires_at=later) as one,
        rented(provider, tmp_path, expires_at=later) as other,
    ):
        soon = utcnow() + timedelta(seconds=3)
        for moment in (soon, later):
            provider.expire(one.instance.ref, moment)
        provider.expire(other.instance.ref, soon)
        eventually(lambda: provider.get(other.instance.ref).state is InstanceState.TERMINATED)
        assert utcnow() >= soon
        assert one.say("echo still here") == "still here"
        with pytest.raises(NotFound):
            provider.expire(other.instance.ref, soon)
        provider.expire(one.instance.ref, utcnow() - timedelta(days=1))
        eventually(lambda: provider.get(one.instance.ref).state is InstanceState.TERMINATED)


def test_of_many_moves_at_once_one_counts(tmp_path: Path, local: Local) -> None:
    with rented(local, tmp_path) as machine:
        program = (
            "import sys; from datetime import datetime; from pathlib import Path\n"
            "from gpucloud.model import InstanceRef; from gpucloud.provider import ProviderSettings\n"
            "from gpucloud_local import Local\n"
            "local = Local(ProviderSettings('local', Path(sys.argv[1])))\n"
            "for moment in sys.argv[3:] * 20:\n"
            "    local.expire(InstanceRef(sys.argv[2]), datetime.fromisoformat(moment))\n"
        )
        moments = [(utcnow() + timedelta(hours=hours)).isoformat() for hours in (1, 2)]
        words = [sys.executable, "-c", program, str(tmp_path / "state"), machine.instance.ref.id, *moments]
        everyone = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        assert [process.communicate() and process.returncode for process in everyone] == [0, 0, 0]
        assert machine.say("echo still here") == "still here"
        local.expire(machine.instance.ref, utcnow())
        eventually(lambda: local.get(machine.instance.ref).state is InstanceState.TERMINATED)


def test_the_local_provider_cannot_stop_and_does_not_say_so(local: Local) -> None:
    assert isinstance(local, MovesExpiry)
    assert not isinstance(local, Stops)


def test_terminate_while_an_instance_expires_is_not_lost(tmp_path: Path, local: Local) -> None:
    key, offer = identity(tmp_path), an_offer(local)
    for _ in range(8):
        instance = local.launch(offer, a_spec(key, expires_at=utcnow()))
        eventually(lambda ref=instance.ref: local.get(ref).state is InstanceState.TERMINATED)  # type: ignore[misc]
        local.terminate(instance.ref)
        eventually(lambda: not list(local.instances()))
    assert list(local.settings.state_dir.iterdir()) == []


def test_leftovers_of_launches_and_teardowns_that_were_killed_are_swept(tmp_path: Path, local: Local) -> None:
    state = local.settings.state_dir
    for name in (".draft-old", ".gone-old", ".draft-new", ".somebody-elses"):
        (state / name / "inner").mkdir(parents=True)
        if "new" not in name:
            os.utime(state / name, (0, 0))
    (state / "a file").touch()
    assert list(local.instances()) == []
    assert {entry.name for entry in state.iterdir()} == {".draft-new", ".somebody-elses", "a file"}


def test_a_damaged_instance_is_an_error_and_no_absence(tmp_path: Path, local: Local) -> None:
    with rented(local, tmp_path) as machine:
        whole = (machine.folder / "spec.json").read_text()
        (machine.folder / "spec.json").write_text(whole[: len(whole) // 2])
        for look in (lambda: list(local.instances()), lambda: local.get(machine.instance.ref)):
            with pytest.raises(Rejected) as caught:
                look()
            assert str(machine.folder / "spec.json") in caught.value.why
        local.terminate(machine.instance.ref)
        eventually(lambda: not machine.folder.exists())


def test_the_address_of_an_instance_is_there_as_long_as_it_runs(tmp_path: Path, local: Local) -> None:
    instance = local.launch(an_offer(local), a_spec(identity(tmp_path)))
    assert running(local, instance).state is InstanceState.RUNNING
    end(local, instance)
    with pytest.raises(NotFound):
        local.get(instance.ref)
