"""Work that a visitor started: one job at a time, its progress, and how it is stopped."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from core.runs.processes import WATCHER, watched

Tell = Callable[[float | None, str], object]  # the share that is done, None where it is not known, and what is done
ONE_AT_A_TIME = threading.Lock()
STOPS: dict[str, threading.Event] = {}  # by visitor, of the job that runs


class Stopped(Exception):
    """The visitor stopped the job."""


@contextlib.contextmanager
def job(visitor: str, tell: Tell) -> Iterator[None]:
    """Do a visitor's work in the block, alone, and tell of its progress.

    Raises:
        Stopped: `stop` was called; the work ends at the next step that it tells of.
    """
    asked = threading.Event()

    def watch(what: str, done: int, total: int | None) -> None:
        if asked.is_set():
            raise Stopped
        tell(done / total if total else None, what)

    with ONE_AT_A_TIME:
        STOPS[visitor] = asked
        try:
            with watched(watch):
                yield
        finally:
            STOPS.pop(visitor, None)


def stop(visitor: str) -> None:
    """End the visitor's job, if there is one."""
    if asked := STOPS.get(visitor):
        asked.set()


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Name a part of the job: it stands in place of the names of the bars within."""
    outer = WATCHER.get() or (lambda what, done, total: None)
    outer(name, 0, None)
    with watched(lambda what, done, total: outer(name, done, total)):
        yield
