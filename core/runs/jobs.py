"""Steps of an experiment side by side: several at a time, each as soon as all that it reads is there."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path
from typing import NamedTuple

from core.runs.command_line import end_with
from core.runs.errors import UserError
from core.runs.processes import SHARED_BY, cpu_count, progress, say, worker_pool
from core.runs.steps import Step, is_complete, perform_step

SECONDS_TO_END = 5  # for a step that is stopped, before its process is killed


def run_side_by_side(records: Path, steps: Sequence[Step], stages: Collection[str], jobs: int) -> None:
    """Run the steps of these stages that are not complete in `jobs` processes, each with its share of the cores.

    Small models hardly use a second core, so that two steps on one core each are faster than one after the other on
    two. What a step prints goes to {records}/{name}.log. When one fails, those in progress are stopped, as by a kill.

    Args:
        steps: all of the experiment, also of other stages: what a step waits for may go through them.

    Raises:
        UserError: a step has failed, or its process was killed.
    """
    needed = prerequisites(steps)
    waiting = [number for number, step in enumerate(steps) if step.stage in stages]
    running: dict[Future, int] = {}
    done = set(range(len(steps))) - set(waiting)
    bar = progress(total=len(waiting), desc="Steps", unit="step")
    with shared_cores(jobs), worker_pool(jobs, end_on_sigterm) as pool, bar:
        try:
            while waiting or running:
                ready = [number for number in waiting if needed[number] <= done]
                if not ready or len(running) == jobs:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        check_performed(future, steps[running[future]], records)
                        done.add(running.pop(future))
                        bar.update()
                    continue
                number, step = ready[0], steps[ready[0]]
                waiting.remove(number)
                if is_complete(records, step):
                    say_above(bar, f"complete: {step.name}")
                    done.add(number)
                    bar.update()
                    continue
                if step.check:
                    step.check()
                say_above(bar, f"{step.name}\n$ {step.command()}" if step.script else step.name)
                sent = step._replace(check=None)  # which has been called, and need not go to another process
                running[pool.submit(perform_and_log, records, sent)] = number
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            end_children()
            if isinstance(error, BrokenProcessPool):
                names = " or ".join(steps[number].name for number in running.values())
                raise UserError(
                    f"the process of {names} was killed, for want of memory perhaps; run the same command again with "
                    f"fewer --jobs (what they printed: {records})"
                ) from None
            raise


def prerequisites(steps: Sequence[Step]) -> list[set[int]]:
    """For each step, the places of those before it that write what it reads, and of those that these wait for."""
    written = [Places.of(step.outputs) for step in steps]
    needed: list[set[int]] = []
    for number, step in enumerate(steps):
        read = Places.of(step.inputs)
        direct = [first for first in range(number) if written[first].meet(read)]
        needed.append(set(direct).union(*(needed[first] for first in direct)))
    return needed


class Places(NamedTuple):
    """Files or folders, and all folders that they lie in."""

    paths: set[Path]
    folders: set[Path]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Places":
        absolute = {path.absolute() for path in paths}
        lowest = {path.parent for path in absolute}
        return cls(absolute, lowest | {folder for path in lowest for folder in path.parents})

    def meet(self, others: "Places") -> bool:
        """Whether one of these is one of the others, or lies in it, or holds it."""
        return bool(self.paths & others.paths or self.paths & others.folders or self.folders & others.paths)


def say_above(bar, text: str) -> None:
    with bar.external_write_mode():
        say(text)


def check_performed(future: Future, step: Step, records: Path) -> None:
    """Raises UserError with the step's own words where it has failed."""
    try:
        future.result()
    except SystemExit:
        log = log_path(records, step)
        lines = log.read_text(errors="replace").splitlines() or ["it printed nothing"]
        told = next((line.partition("error: ")[2] for line in reversed(lines) if "error: " in line), lines[-1])
        raise UserError(f"{step.name}: {told} (what it printed: {log})") from None


def end_children() -> None:
    """End the processes of the steps in progress, and kill those that do not end in time."""
    children, deadline = active_children(), time.monotonic() + SECONDS_TO_END
    for child in children:
        child.terminate()
    for child in children:
        child.join(max(0, deadline - time.monotonic()))
        child.kill()


# In the process of a step


@contextlib.contextmanager
def shared_cores(jobs: int) -> Iterator[None]:
    """Let each of the `jobs` processes that start in the block compute with its share of the cores."""
    names, before = ("OMP_NUM_THREADS", SHARED_BY), dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // jobs)))  # read when torch and NumPy are loaded
    os.environ[SHARED_BY] = str(jobs)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def end_on_sigterm() -> None:
    """Let SIGTERM end a step as an error would, so that it removes its temporary files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def perform_and_log(records: Path, step: Step) -> None:
    """Run a step; all that it prints, and what its own processes print, goes to its log.

    Raises:
        SystemExit: it has failed; its log says why.
    """
    path = log_path(records, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    try:
        perform_step(records, step)
    except UserError as error:  # of a function; a script has ended with SystemExit
        end_with(str(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def log_path(records: Path, step: Step) -> Path:
    return records / f"{step.name}.log"
