"""Work that is done once: a record keeps with what settings and inputs it ran, how long it took and in what memory."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.runs.files import atomic_file, fingerprint
from core.runs.processes import say
from core.runs.software import git_commit


class Job(NamedTuple):
    """Complete once it has run with these settings on these inputs and its outputs are there."""

    name: str  # of its record, unique
    settings: dict[str, Any]
    inputs: list[Path]
    outputs: list[Path]


def run_once(records: Path, job: Job, run: Callable[[], Any], *, measurable: bool = True) -> None:
    """Run a job unless it is complete, and write its record, {records}/{name}.json.

    Args:
        measurable: the work is done in this process, so that its peak memory can be told.
    """
    if is_complete(records, job):
        say(f"complete: {job.name}")
        return
    path = record_path(records, job.name)
    path.unlink(missing_ok=True)
    before = fingerprints([path for path in job.inputs if path.exists()])  # what is changed meanwhile was not used
    reset_peak_memory()
    started = time.monotonic()
    run()
    measured = {"seconds": round(time.monotonic() - started, 1), "peak_memory_gb": peak_memory() if measurable else {}}
    content = {"settings": job.settings, "inputs": before, **measured, "git_commit": git_commit()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def is_complete(records: Path, job: Job) -> bool:
    return (
        all(path.exists() for path in (*job.outputs, *job.inputs))
        and ran_with(records, job)
        and read_record(records, job.name)["inputs"] == fingerprints(job.inputs)
    )


def ran_with(records: Path, job: Job) -> bool:
    """Whether the job ran to its end with these settings, whatever its inputs were."""
    return read_record(records, job.name).get("settings") == json.loads(json.dumps(job.settings))


def read_record(records: Path, name: str) -> dict[str, Any]:
    """Of a job that ran to its end; empty where there is none."""
    try:
        return json.loads(record_path(records, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def record_path(records: Path, name: str) -> Path:
    return records / f"{name}.json"


def fingerprints(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): fingerprint(path) for path in paths}


def reset_peak_memory() -> None:
    """Linux forgets the highest memory of a process when asked; elsewhere the peak is that of all jobs so far."""
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
        kilobytes /= 1024  # counted in bytes there
    peaks = {"process": round(kilobytes / 1e6, 2)}
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        peaks["gpu"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        torch.cuda.reset_peak_memory_stats()
    return peaks
