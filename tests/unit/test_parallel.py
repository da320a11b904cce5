"""Several waits at once: each result is told, and nothing that hangs keeps anybody waiting."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextvars import ContextVar
from functools import partial
from operator import mul

import pytest

from gpucloud.parallel import results, run_all
from tests.harness.waiting import eventually


def _raise(error: BaseException) -> int:
    raise error


def test_every_task_has_its_own_answer() -> None:
    assert run_all({number: partial(mul, number, 2) for number in range(20)}) == {
        number: number * 2 for number in range(20)
    }


def test_no_task_is_no_wait() -> None:
    assert run_all({}) == {}
    assert run_all({}, 0) == {}


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_one_task_raises_is_its_answer_and_hurts_no_other(error: BaseException) -> None:
    done = run_all({"bad": lambda: _raise(error), "good": lambda: 1}, 5)
    assert done == {"bad": error, "good": 1}


def test_all_tasks_run_at_the_same_time() -> None:
    meeting = threading.Barrier(8)
    done = run_all({number: lambda: meeting.wait(20) for number in range(8)}, 30)
    assert sorted(done.values(), key=str) == list(range(8))


def test_a_task_that_is_late_is_missing_and_the_others_are_there() -> None:
    release = threading.Event()
    try:
        done = run_all({"late": lambda: release.wait(60), "early": lambda: True}, 0.2)
        assert done == {"early": True}
    finally:
        release.set()


def test_a_late_task_goes_on_unheard() -> None:
    release, finished = threading.Event(), threading.Event()

    def late() -> None:
        release.wait(60)
        finished.set()

    assert run_all({"late": late}, 0) == {}
    release.set()
    assert eventually(finished.is_set)


def test_a_task_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = (
        "import threading\n"
        "from gpucloud.parallel import run_all\n"
        "print(run_all({'hangs': threading.Event().wait, 'ok': lambda: 1}, 0.2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "{'ok': 1}\n")


def test_results_are_those_of_a_run_in_which_all_went_well() -> None:
    assert results({"a": 1, "b": None}) == {"a": 1, "b": None}


def test_the_first_error_of_a_run_is_raised() -> None:
    first, second = ValueError("first"), ValueError("second")
    with pytest.raises(ValueError, match="first") as caught:
        results({"a": 1, "b": first, "c": second})
    assert caught.value is first


def test_tasks_know_what_holds_for_who_started_them() -> None:
    patience: ContextVar[int] = ContextVar("patience", default=60)
    token = patience.set(5)
    try:
        assert results(run_all(dict.fromkeys(range(3), patience.get))) == dict.fromkeys(range(3), 5)
    finally:
        patience.reset(token)
