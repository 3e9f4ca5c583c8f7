"""A training run's folder: `hand1000.json`, losses, checkpoints, and when to go on, to start, or to refuse.

output/call/
  hand1000.json        settings, input hashes, versions; "status" turns to "finished" last
  model_index.json ... a diffusers Stable Diffusion folder
  fusion.safetensors   only where the fusion weights came from a file
  losses.csv           image,stage,step,loss
  checkpoints/checkpoint-100/ ...
"""

import contextlib
import csv
import json
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hand1000.cli import UserError
from hand1000.files import atomic_file, hold

RECORD = "hand1000.json"
UNFINISHED, FINISHED = "unfinished", "finished"
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "mediapipe", "numpy", "safetensors")


def read_record(run_folder: Path) -> dict[str, Any] | None:
    """What `hand1000.json` says, or None where there is none.

    Raises:
        UserError: the file is there but damaged.
    """
    path = run_folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        complete = {"status", "settings", "fusion"} <= record.keys()
    except (ValueError, AttributeError):
        complete = False
    if not complete:
        raise UserError(f"{path}: damaged; remove the run folder or restore the file")
    return record


def write_record(run_folder: Path, record: dict[str, Any]) -> None:
    with atomic_file(run_folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def software() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def differing_settings(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings in which two runs differ, for a person: "Lambda 0.7, now 0.5"."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    shorten = lambda value: f"{str(value)[:12]}…" if len(str(value)) > 40 else str(value)  # noqa: E731
    return "; ".join(f"{key} was {shorten(old.get(key))}, is now {shorten(new.get(key))}" for key in keys)


def checkpoints(run_folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    found = [path for path in (run_folder / "checkpoints").glob("checkpoint-*") if path.name[11:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def checkpoint_to_resume(run_folder: Path, settings: dict[str, Any], resume: str | None) -> Path | None:
    """Where training has to start: a checkpoint, or None for the beginning.

    Args:
        resume: `--resume_from_checkpoint`: "latest", a checkpoint's name or path, or None.

    Raises:
        UserError: going on would mix two runs or lose one, or the checkpoint is not one.
    """
    record, found = read_record(run_folder), checkpoints(run_folder)
    if record is None and run_folder.is_dir() and any(not p.name.startswith(".") for p in run_folder.iterdir()):
        raise UserError(f"{run_folder}: holds files that are no training run; choose another --output_dir")
    anything_to_lose = bool(found) or (record and record["status"] == FINISHED)
    if record and anything_to_lose and (different := differing_settings(record["settings"], settings)):
        raise UserError(
            f"{run_folder}: holds a {record['status']} run of other settings ({different}); "
            "choose another --output_dir, or remove it"
        )
    if resume and resume != "latest":
        checkpoint = Path(resume) if Path(resume).is_dir() else run_folder / "checkpoints" / resume
    else:
        checkpoint = found[-1] if resume and found else None
    if checkpoint:
        check_checkpoint(checkpoint, settings)
        return checkpoint
    if found:
        raise UserError(
            f"{run_folder}: holds an unfinished run ({found[-1].name}); go on with --resume_from_checkpoint latest, "
            "choose another --output_dir, or remove it"
        )
    return None


def check_checkpoint(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Refuse what is not a checkpoint of a run with these settings.

    Raises:
        UserError
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        different = differing_settings(state["settings"], settings)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{checkpoint}: not a checkpoint of train.py (no readable state.json in it)") from None
    if different:
        raise UserError(f"{checkpoint}: belongs to a run of other settings ({different})")


def locked(run_folder: Path) -> contextlib.AbstractContextManager[None]:
    """Make the run folder and hold it; raises UserError where another training is writing there."""
    return hold(run_folder / ".lock", f"{run_folder}: another training is under way there; choose another --output_dir")


def remove_old_checkpoints(run_folder: Path, keep: int) -> None:
    for checkpoint in checkpoints(run_folder)[:-keep]:
        shutil.rmtree(checkpoint)


def write_losses(path: Path, losses: list[tuple[str, str, int, float]]) -> None:
    """`image,stage,step,loss`: stage is `embedding` (II) or `finetune` (III), steps count from 0."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "stage", "step", "loss"))
        writer.writerows(losses)


def read_losses(path: Path) -> list[tuple[str, str, int, float]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        return [(image, stage, int(step), float(loss)) for image, stage, step, loss in rows]


def git_commit() -> str | None:
    """Of this code, with "+" if it was changed since."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
