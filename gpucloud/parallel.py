"""Several waits at once, in threads that never keep the process from ending."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def run_all(tasks: Mapping[K, Callable[[], T]], timeout_s: float | None = None) -> dict[K, T | BaseException]:
    """Run all tasks at once; for each its result, or what it raised.

    A task that is not done within ``timeout_s`` is missing from the answer and goes on unheard. An interrupt
    from the keyboard is raised here at once; the books, not the threads, know what was under way.
    """
    return dict(as_they_come({key: partial(_one, task) for key, task in tasks.items()}, timeout_s))


def as_they_come(
    tasks: Mapping[K, Callable[[], Iterable[T]]], timeout_s: float | None = None
) -> Iterator[tuple[K, T | BaseException]]:
    """Run all tasks at once; everything they yield, or raise at last, when it is there.

    What is not there within ``timeout_s`` is not told. Otherwise as ``run_all``.
    """
    answers: queue.SimpleQueue[tuple[K, T | BaseException] | None] = queue.SimpleQueue()

    def work(key: K, task: Callable[[], Iterable[T]]) -> None:
        try:
            for answer in task():
                answers.put((key, answer))
        except BaseException as error:  # noqa: BLE001 - handed over to the caller
            answers.put((key, error))
        finally:
            answers.put(None)

    for key, task in tasks.items():
        # What holds for the caller alone, as how long a request may take, holds for what it starts.
        threading.Thread(target=copy_context().run, args=(work, key, task), daemon=True).start()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    running = len(tasks)
    while running:
        try:
            answer = answers.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if answer is None:
            running -= 1
        else:
            yield answer


def _one(task: Callable[[], T]) -> Iterator[T]:
    yield task()


def results(done: Mapping[K, T | BaseException]) -> dict[K, T]:
    """The results of ``run_all`` when all went well; otherwise the first error is raised."""
    good: dict[K, T] = {}
    for key, answer in done.items():
        if isinstance(answer, BaseException):
            raise answer
        good[key] = answer
    return good
