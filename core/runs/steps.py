"""Experiments of many steps: each runs once, is skipped when it is complete, and leaves a record of what it cost.

A step is a script with its arguments, or a function. Its record, {records}/{name}.json, keeps the settings and the
hashes of the inputs that it ran with, its time, its peak memory, and this code's commit.
"""

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from core.runs.errors import UserError
from core.runs.files import fingerprint
from core.runs.processes import counted, say
from core.runs.run import FINISHED, Record, Run, read_record
from core.runs.schema import misfit
from core.runs.software import git_commit


class Step(NamedTuple):
    """Complete once it has run with these settings on these inputs and its outputs are there."""

    stage: str  # the kind of step, such as "train"
    name: str  # of its record, unique: call/seed_0/hand1000/train
    inputs: list[Path]
    outputs: list[Path]
    script: Path | None = None  # runs in this process as if started from the shell
    arguments: list[str] = []  # of the script
    run: Callable[[], object] | None = None  # where it is no script
    settings: dict[str, Any] = {}  # all that the outputs depend on beside the inputs and the arguments
    scratch: list[Path] = []  # what can be removed when it is complete
    check: Callable[[], object] | None = None  # raises UserError where it can't be run

    @property
    def all_settings(self) -> dict[str, Any]:
        return {"arguments": self.arguments, **self.settings}

    def command(self, launcher: Sequence[str] = ("python",)) -> str:
        """What a person would type in the current folder."""
        if not self.script:
            return f"({self.name})"
        return shlex.join([*launcher, os.path.relpath(self.script), *self.arguments])


def run_step(records: Path, step: Step, launcher: Sequence[str] | None = None) -> None:
    """Run a step unless it is complete.

    Args:
        launcher: starts the script in processes of its own, such as ["accelerate", "launch"].
    """
    if is_complete(records, step):
        say(f"complete: {step.name}")
        return
    if step.check:
        step.check()
    perform_step(records, step, launcher)


def perform_step(records: Path, step: Step, launcher: Sequence[str] | None = None) -> None:
    """Run a step and write its record, which makes it complete."""
    launcher = launcher if step.script else None
    inputs = fingerprints([path for path in step.inputs if path.exists()])  # what changes meanwhile was not used
    run = Run(record_path(records, step.name), {**step.all_settings, "inputs": inputs}, what="step", owns_folder=False)
    run.begin()
    reset_peak_memory()
    started = time.monotonic()
    if step.run:
        step.run()
    elif step.script:
        say(f"$ {step.command(launcher or ('python',))}")
        run_script(step.script, step.arguments, launcher)
    seconds = round(time.monotonic() - started, 1)
    for path in step.scratch:
        shutil.rmtree(path, ignore_errors=True)
    run.finish(seconds=seconds, peak_memory_gb={} if launcher else peak_memory(), git_commit=git_commit())


def run_script(script: Path, arguments: Sequence[str], launcher: Sequence[str] | None = None) -> None:
    """Run a Python script in this process, as the shell would: libraries are loaded once for all of them.

    Raises:
        SystemExit: the script ended with an error, which it has printed.
    """
    if launcher:
        status = subprocess.run([*launcher, str(script), *arguments]).returncode
        if status:
            say(f"{launcher[0]} ended with status {status}")
            sys.exit(2)
        return
    before = sys.argv
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before


def script_functions(script: Path) -> dict[str, Any]:
    """The functions of a script, by name, such as its `parse_args`."""
    return runpy.run_path(str(script))


# What is complete


def is_complete(records: Path, step: Step) -> bool:
    """Whether a step has run with the same settings on the same inputs, and its outputs are there."""
    record = finished_record(records, step.name)
    return (
        record is not None
        and all(path.exists() for path in (*step.outputs, *step.inputs))
        and record.settings == {**step.all_settings, "inputs": fingerprints(step.inputs)}
    )


def ran_with_these_settings(records: Path, step: Step) -> bool:
    """Whether a step has run to its end with the same settings, whatever its inputs were."""
    record = finished_record(records, step.name)
    return record is not None and {**record.settings, "inputs": {}} == {**step.all_settings, "inputs": {}}


def finished_record(records: Path, name: str) -> Record | None:
    """Of a step that has run to its end."""
    try:
        record = read_record(record_path(records, name))
    except UserError:  # damaged, or of an earlier version: the step runs again
        return None
    is_whole = record is not None and record.status == FINISHED and not misfit(record.facts, StepFacts)
    return record if is_whole else None


def record_path(records: Path, name: str) -> Path:
    return records / f"{name}.json"


def fingerprints(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): fingerprint(path) for path in paths}


# The plan, and what it costs


def print_plan(records: Path, steps: Sequence[Step]) -> None:
    """Every command, marked where it is complete; how many are left of each stage, and the time they will take."""
    to_do: Counter[str] = Counter()
    for step in steps:
        complete = is_complete(records, step)
        to_do[step.stage] += not complete
        say(f"{'complete' if complete else 'to do   '}  {step.command()}")
    counts = ", ".join(f"{count} to {stage}" for stage, count in to_do.items() if count)
    left = sum(to_do.values())
    summary = f"{counted(len(steps), 'step')}, {len(steps) - left} complete, {left} to do"
    say(f"\n{summary}: {counts}" if counts else f"\n{summary}")
    say(f"time: {time_estimate(records, to_do)}")


def time_estimate(records: Path, to_do: Counter[str]) -> str:
    """From what finished steps of the same stages took in this folder."""
    taken: dict[str, list[float]] = {}
    for path in records.rglob("*.json"):
        name = path.relative_to(records).with_suffix("").as_posix()
        if record := finished_record(records, name):
            taken.setdefault(stage_of(name), []).append(record.facts["seconds"])
    unknown = [stage for stage, count in to_do.items() if count and stage not in taken]
    if unknown:
        return f"not known yet for {', '.join(unknown)}; run one step of each, then ask again"
    seconds = sum(count * sum(taken[stage]) / len(taken[stage]) for stage, count in to_do.items() if count)
    minutes = counted(round(seconds / 60), "minute")
    return f"about {minutes}, judging by the stages that have run, one step at a time"


class StepFacts(TypedDict):
    """What the record of a finished step says beside its settings."""

    seconds: float
    peak_memory_gb: dict[str, float]  # "process" and "gpu", where known
    git_commit: str | None


class Cost(NamedTuple):
    """What a finished step took."""

    name: str
    stage: str
    seconds: float
    peak_memory_gb: dict[str, float]  # "process" and "gpu", where known
    git_commit: str | None


def costs(records: Path, steps: Sequence[Step]) -> list[Cost]:
    """Of the steps that have run to their end, in order."""
    found = []
    for step in steps:
        if record := finished_record(records, step.name):
            facts = {name: record.facts[name] for name in StepFacts.__annotations__}
            found.append(Cost(step.name, step.stage, **facts))
    return found


def time_taken(records: Path, steps: Sequence[Step]) -> str:
    """Where the time of the steps went, by stage: "train 190 s, generate 120 s"."""
    seconds: dict[str, float] = {}
    for cost in costs(records, steps):
        seconds[cost.stage] = seconds.get(cost.stage, 0) + cost.seconds
    return ", ".join(f"{stage} {taken:.0f} s" for stage, taken in seconds.items())


def stage_of(name: str) -> str:
    """The stage that a step belongs to, by its name."""
    return name.rpartition("/")[2]


def reset_peak_memory() -> None:
    """Linux forgets the highest memory of a process when asked; elsewhere the peak is that of all steps so far."""
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> dict[str, float]:
    """Gigabytes that this process (without its workers), and the GPU, held at most."""
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.is_file():
        kilobytes = int(status.read_text().partition("VmHWM:")[2].split()[0])
    elif sys.platform == "darwin":
        kilobytes //= 1024  # counted in bytes there
    peaks = {"process": round(kilobytes / 1e6, 2)}
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        peaks["gpu"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        torch.cuda.reset_peak_memory_stats()
    return peaks
