"""Local instances of an ordinary user, launched by root on that user's behalf."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gpucloud.model import InstanceRef, InstanceState
from gpucloud.remote.keys import identity
from tests.harness.waiting import eventually
from tests.providers.local.conftest import a_provider
from tests.providers.rented import Rented, running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="not root, so all other tests are this one"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv on this machine"),
]

LAUNCH = """\
import sys
from pathlib import Path
from gpucloud.model import InstanceRef, Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud_local import Local
state, public_key = sys.argv[1:]
provider = Local(ProviderSettings("local", Path(state)))
(offer,) = provider.offers(Requirements())
provider.launch(offer, LaunchSpec("gc-user", "test", 0, "me", public_key))
"""

TERMINATE = LAUNCH.partition("(offer,)")[0] + 'provider.terminate(InstanceRef("gc-user"))\n'


class User:
    """Runs programs as another user, with what we run and a folder of the user's own."""

    def __init__(self, uid: str, tmp_path: Path) -> None:
        self.uid = uid
        self.key = identity(tmp_path)
        self.state = tmp_path / "state"
        self.state.mkdir()
        shutil.chown(self.state, int(uid))
        for folder in self.state.parents:
            if folder.is_relative_to(Path(tempfile.gettempdir()).resolve() / "pytest-of-root"):
                folder.chmod(0o711)
        self.python = self._python()

    def __call__(self, program: str, python: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in Python."""
        words = ["setpriv", "--reuid", self.uid, "--regid", self.uid, "--clear-groups", "--bounding-set=-all"]
        return subprocess.run(
            [*words, python or self.python, "-c", program, str(self.state), self.key.public],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": "/nonexistent",
                "PYTHONPATH": os.pathsep.join(sys.path),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )

    def _python(self) -> str:
        """A Python that the user may run and that finds what we run: ours may be in root's home."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        probe = (
            "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'import pydantic_core'])"
        )
        for candidate in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
            if candidate and self(probe, candidate).returncode == 0:
                return candidate
        pytest.skip("no Python here can be run by another user")


@pytest.fixture(params=["65534", "54321"], ids=["nobody", "a number without a name"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    """An ordinary user."""
    return User(request.param, tmp_path)


def launched(user: User) -> Rented:
    """The user's instance."""
    done = user(LAUNCH)
    assert done.returncode == 0, done.stderr
    provider = a_provider(user.state)
    # Whom we would log in as is of no matter: whoever has the key is let in.
    return Rented(provider, running(provider, provider.get(InstanceRef("gc-user"))), user.key)


def test_it_works_without_root(user: User) -> None:
    machine = launched(user)
    assert machine.say("id -u") == user.uid
    machine.say("mkdir -p cache/inner && touch cache/inner/file && chmod -R 555 cache")
    done = user(TERMINATE)
    assert done.returncode == 0, done.stderr
    eventually(lambda: not list(machine.provider.instances()))
    assert list(user.state.iterdir()) == []


def test_what_cannot_be_removed_keeps_its_instance_listed(user: User) -> None:
    machine = launched(user)
    foreign = machine.folder / "home" / "foreign"
    foreign.mkdir()
    (foreign / "of root").touch()
    assert user(TERMINATE).returncode == 0
    eventually(lambda: machine.provider.get(machine.instance.ref).state is InstanceState.FAILED)
    again = user(TERMINATE)
    assert again.returncode == 1
    assert "Rejected: local: the files of an instance cannot be used" in again.stderr
    assert str(foreign) in again.stderr
    assert [i.token for i in machine.provider.instances()] == ["gc-user"]
    machine.provider.terminate(machine.instance.ref)
    assert list(machine.provider.instances()) == []
