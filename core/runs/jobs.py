"""Steps of an experiment side by side: several at a time, each as soon as all that it reads is there."""

import functools
import os
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from pathlib import Path

from core.runs.errors import UserError
from core.runs.processes import cpu_count, progress, worker_pool
from core.runs.steps import Step, is_complete, perform_step


def run_side_by_side(
    records: Path, steps: Sequence[Step], jobs: int, *, launcher: Sequence[str] | None, launched: Collection[str]
) -> None:
    """Run the steps that are not complete in `jobs` processes, each with its share of the cores.

    Small models hardly use a second core, so that two steps on one core each are faster than one after the other on
    two. What a step prints goes to {records}/{name}.log. When one fails, those in progress are stopped, as by a kill.

    Args:
        launcher: command that starts the scripts of the stages `launched`.

    Raises:
        UserError: a step has failed, or its process was killed.
    """
    needed = prerequisites(steps)
    waiting, running, done = list(range(len(steps))), dict[Future, int](), set[int]()
    prepare = functools.partial(use_threads, max(1, cpu_count() // jobs))
    with worker_pool(jobs, prepare) as pool, progress(total=len(steps), desc="Steps", unit="step") as bar:
        try:
            while waiting or running:
                ready = [number for number in waiting if needed[number] <= done]
                if ready and len(running) < jobs:
                    number, step = ready[0], steps[ready[0]]
                    waiting.remove(number)
                    if is_complete(records, step):
                        bar.write(f"complete: {step.name}")
                        done.add(number)
                        bar.update()
                        continue
                    if step.check:
                        step.check()
                    starts_with = launcher if step.stage in launched else None
                    bar.write(f"{step.name}\n$ {step.command(starts_with or ('python',))}")
                    running[pool.submit(perform_and_log, records, step._replace(check=None), starts_with)] = number
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(future)
                    check_performed(future, steps[number], records)
                    done.add(number)
                    bar.update()
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def prerequisites(steps: Sequence[Step]) -> list[set[int]]:
    """For each step, the places of those before it that write what it reads."""
    written = [with_folders(step.outputs) for step in steps]
    read = [with_folders(step.inputs) for step in steps]
    return [{first for first in range(second) if meet(written[first], read[second])} for second in range(len(steps))]


def with_folders(paths: Sequence[Path]) -> tuple[set[Path], set[Path]]:
    """The absolute paths, and all folders that they lie in."""
    absolute = {path.absolute() for path in paths}
    return absolute, {folder for path in absolute for folder in path.parents}


def meet(written: tuple[set[Path], set[Path]], read: tuple[set[Path], set[Path]]) -> bool:
    """Whether one is the other, or lies in it."""
    (outputs, folders), (inputs, folders_read) = written, read
    return bool(outputs & inputs or outputs & folders_read or folders & inputs)


# In the process of a step


def use_threads(threads: int) -> None:
    """Compute with so many threads, also in the processes that a step starts."""
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def perform_and_log(records: Path, step: Step, launcher: Sequence[str] | None) -> None:
    """Run a step; all that it prints, and what its own processes print, goes to its log."""
    path = log_path(records, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
        perform_step(records, step, launcher)


def log_path(records: Path, step: Step) -> Path:
    return records / f"{step.name}.log"


def check_performed(future: Future, step: Step, records: Path) -> None:
    """Raises UserError with the step's own words where it has failed."""
    log = log_path(records, step)
    try:
        future.result()
    except BrokenProcessPool:
        raise UserError(
            f"{step.name}: its process was killed, for want of memory perhaps; run the same command again with fewer "
            f"--jobs (what it printed: {log})"
        ) from None
    except SystemExit:
        lines = log.read_text(errors="replace").splitlines() or ["it printed nothing"]
        told = next((line.partition("error: ")[2] for line in reversed(lines) if "error: " in line), lines[-1])
        raise UserError(f"{step.name}: {told} (what it printed: {log})") from None
