"""Work that may be killed, resumed, refused or finished: one idea for a training, pictures, captions and data sets.

    run = Run(output_dir / "hand1000.json", settings, what="training")
    with run.hold():                                        # nobody else works there
        if run.is_finished():                               # or UserError: other settings, damaged, foreign files
            return
        checkpoint = run.checkpoint_to_resume("latest")     # or UserError: unfinished, and not asked to resume
        run.begin(base_model=...)                           # from here on it is an unfinished run
        for step in ...:
            run.save_checkpoint(step, write, state={...}, size=..., keep=1)  # a full disk costs it, not the run
        run.finish(base_model=...)                          # last, when all the rest is there

Its files:
    hand1000.json                     the record: status, settings, and facts about the run
    .hand1000.lock                    held while somebody works there
    checkpoints/checkpoint-100/       what the caller writes, and state.json
"""

import contextlib
import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_file, atomic_folder, free_bytes, hold_lock, remove_leftovers, write_json
from core.runs.processes import is_main_process, say
from core.runs.schema import misfit, parsed_json

UNFINISHED, FINISHED = "unfinished", "finished"
LONGEST_SETTING = 40  # characters of a setting in a message
STATE = "state.json"  # of a checkpoint
DISK_ERRORS = (OSError, RuntimeError)  # what a full disk raises: Python's own, and torch.save's


class RecordFile(TypedDict):
    """What every record holds, beside its facts."""

    status: Literal["unfinished", "finished"]
    settings: dict[str, Any]


class Record(NamedTuple):
    """What is known of a run."""

    status: str  # "unfinished" or "finished"
    settings: dict[str, Any]  # all that its result depends on, inputs as hashes
    facts: dict[str, Any]  # whatever else is worth knowing


class Run:
    """One run, in the folder of its record.

    Args:
        record: the JSON file that makes the folder a run, such as output/call/hand1000.json.
        settings: all that the result depends on, inputs as hashes: with the same settings it ends the same.
        what: for messages, such as "training".
        owns_folder: everything in the folder belongs to the run, so that a folder with other files is refused.
        flag: the option that chooses another place, for messages.
    """

    def __init__(
        self,
        record: Path,
        settings: dict[str, Any],
        *,
        what: str,
        owns_folder: bool = True,
        flag: str = "--output_dir",
    ) -> None:
        self.path, self.settings, self.what = record, json.loads(json.dumps(settings)), what
        self.owns_folder, self.flag = owns_folder, flag

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def place(self) -> Path:
        """What messages are about: the folder, or the record where the folder holds other things too."""
        return self.folder if self.owns_folder else self.path

    @property
    def _all_of_it(self) -> str:
        """What a person has to remove to start over."""
        return "it" if self.owns_folder else f"{self.path.name} together with what it describes"

    # Holding and checking

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Work here alone during the block; a killed process holds nothing. A new folder stays only if a run began.

        Raises:
            UserError: somebody else works here.
        """
        if not self.path.is_file():
            self._refuse_foreign_files()  # before a lock file is left in a folder that is somebody else's
        is_new = self.owns_folder and not self.folder.exists()
        lock = self.path.with_name(f".{self.path.stem}.lock")
        taken = f"{self.place}: another {self.what} is in progress there; wait for it, or choose another {self.flag}"
        with hold_lock(lock, taken):
            if self.owns_folder and is_main_process():
                self._refuse_links()
                remove_leftovers(self.folder)
            try:
                yield
            finally:
                if is_new and is_main_process() and list(self.folder.iterdir()) == [lock]:
                    shutil.rmtree(self.folder)

    def record(self) -> Record | None:
        """The record of a run with these settings; None where nothing was begun.

        An unfinished run of other settings that has left nothing yet, not even a checkpoint, does not count.

        Raises:
            UserError: the record is damaged or has other settings, or the folder holds something else.
        """
        record = read_record(self.path)
        if record is None:
            self._refuse_foreign_files()
        elif different := differing_settings(record.settings, self.settings):
            if record.status == UNFINISHED and self._has_left_nothing():
                return None
            article = "a" if record.status == FINISHED else "an"
            raise UserError(
                f"{self.place}: holds {article} {record.status} {self.what} of other settings ({different}); "
                f"choose another {self.flag}, or remove {self._all_of_it}"
            )
        return record

    def is_finished(self) -> bool:
        """Whether a run with these settings is finished here. Raises UserError as `record`."""
        record = self.record()
        return record is not None and record.status == FINISHED

    def _has_left_nothing(self) -> bool:
        left = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        return self.owns_folder and left <= {self.path.name, "logs", "checkpoints"} and not self.checkpoints()

    def _refuse_foreign_files(self) -> None:
        if self.owns_folder and self.folder.is_dir():
            others = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            if others and others != ["logs"]:
                raise UserError(
                    f"{self.folder}: holds '{others[0]}' but no {self.path.name}, so it is not a {self.what}; "
                    f"choose another {self.flag}"
                )

    def _refuse_links(self) -> None:
        """What is written to a link lands elsewhere. The folder may be one itself, and so may what trackers write."""
        for path in self.folder.rglob("*"):
            if path.is_symlink() and path.relative_to(self.folder).parts[0] != "logs":
                raise UserError(
                    f"{path}: is a link, which a {self.what} does not write through; remove it, or choose another "
                    f"{self.flag}"
                )

    # Status

    def begin(self, **facts: Any) -> None:
        """From here on the run is unfinished, until `finish`."""
        self._write(UNFINISHED, facts)

    def finish(self, **facts: Any) -> None:
        """Call it last, when all the rest is there."""
        self._write(FINISHED, facts)

    def _write(self, status: str, facts: dict[str, Any]) -> None:
        if is_main_process():
            write_json(self.path, {"status": status, "settings": self.settings, **facts})

    # Checkpoints

    def checkpoints(self) -> list[Path]:
        """The run's checkpoints, oldest first."""
        found = [
            (int(match[1]), path)
            for path in (self.folder / "checkpoints").glob("checkpoint-*")
            if (match := re.fullmatch(r"checkpoint-([0-9]{1,12})", path.name)) and path.is_dir()
        ]
        return [path for _, path in sorted(found)]

    def checkpoint_to_resume(self, resume: str | None) -> Path | None:
        """Where to start: a checkpoint of a run with these settings, or None for the beginning.

        Args:
            resume: `--resume_from_checkpoint`: "latest", a checkpoint's name or path, or None.

        Raises:
            UserError: there are checkpoints but `resume` is None, or the checkpoint is missing, damaged or of other
                settings.
        """
        found = self.checkpoints()
        if not resume and found:
            raise UserError(
                f"{self.folder}: holds an unfinished {self.what} ({found[-1].name}); resume it with "
                f"--resume_from_checkpoint latest, choose another {self.flag}, or remove it"
            )
        if not resume or (resume == "latest" and not found):
            return None
        if resume == "latest":
            checkpoint = found[-1]
        else:
            checkpoint = Path(resume) if Path(resume).is_dir() else self.folder / "checkpoints" / resume
        self.state_of(checkpoint)
        return checkpoint

    def state_of(self, checkpoint: Path) -> dict[str, Any]:
        """What `save_checkpoint` was given as `state`.

        Raises:
            UserError: missing, damaged, or of a run with other settings.
        """
        if not checkpoint.is_dir():
            raise UserError(f"{checkpoint}: no such checkpoint")
        state = read_json(checkpoint / STATE, f"{checkpoint}: not a checkpoint of a {self.what}")
        if not isinstance(state.get("settings"), dict):
            raise damaged_checkpoint(checkpoint, f"{STATE} has no settings")
        if different := differing_settings(state.pop("settings"), self.settings):
            raise UserError(f"{checkpoint}: belongs to a {self.what} of other settings ({different})")
        return state

    def save_checkpoint(
        self, number: int, write: Callable[[Path], None], *, state: dict[str, Any], size: int, keep: int
    ) -> None:
        """Write checkpoints/checkpoint-{number}, whole or not at all, and remove the oldest beyond `keep`.

        On a disk too full this checkpoint is left out with a warning; the others stay and the run continues.

        Args:
            write: writes the files into the folder that it is given.
            state: JSON that `state_of` gives back.
            size: about how many bytes `write` needs.
        """
        if not is_main_process():
            return
        checkpoint = self.folder / "checkpoints" / f"checkpoint-{number}"
        free = free_bytes(self.folder)
        if free < size:
            self._warn_of_full_disk(checkpoint, f"needs {gigabytes(size)}, {gigabytes(free)} is free")
            return
        try:
            with atomic_folder(checkpoint) as temporary:
                write(temporary)
                write_json(temporary / STATE, {**state, "settings": self.settings})
        except UserError:
            raise
        except Exception as error:
            if not is_disk_error(error):
                raise
            self._warn_of_full_disk(checkpoint, reason_of(error))
            return
        for old in [path for path in self.checkpoints() if path != checkpoint][: -(keep - 1) or None]:
            shutil.rmtree(old)

    def _warn_of_full_disk(self, checkpoint: Path, reason: str) -> None:
        kept = self.checkpoints()
        good = f"the last good one is {kept[-1].name}" if kept else "there is none yet"
        say(f"warning: {checkpoint}: not saved, disk too full ({reason}); {good}. Free some space; the run continues")


# Records


def read_record(path: Path) -> Record | None:
    """The record in a file, or None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    content = read_json(path, f"{path}: damaged")
    check_content(path, content, RecordFile)
    return Record(content.pop("status"), content.pop("settings"), content)


def check_content(path: Path, content: Any, kind: Any) -> None:
    """Check what was read from a record, or a part of it, against its type (see `core.runs.schema`).

    Raises:
        UserError: the record is damaged.
    """
    if problem := misfit(content, kind):
        raise damaged(path, problem)


def damaged(path: Path, reason: str) -> UserError:
    """The error to raise where a record's facts are not what they should be."""
    return UserError(f"{path}: damaged ({reason}); remove it or choose another folder")


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Around the writing of a finished model.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_error(error):
            raise
        raise UserError(
            f"{folder}: can't save the model ({reason_of(error)}); free some space and start again "
            "with --resume_from_checkpoint latest"
        ) from None


def damaged_checkpoint(checkpoint: Path, reason: str) -> UserError:
    """The error to raise where a checkpoint does not hold what its run needs."""
    return UserError(f"{checkpoint}: damaged checkpoint ({reason}); remove it")


def refuse_unfinished(path: Path, record: Record, what: str, how: str = "with --resume_from_checkpoint latest") -> None:
    """For who takes what another run made.

    Args:
        how: to resume it, for the message.

    Raises:
        UserError: it is not finished.
    """
    if record.status != FINISHED:
        raise UserError(f"{path.parent}: holds an unfinished {what}; resume it first {how}")


def read_json(path: Path, problem: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: `problem` and the reason: no such file, not UTF-8, no JSON, no object.
    """
    try:
        content = parsed_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, not an object")
    except (OSError, ValueError) as error:
        raise UserError(f"{problem} ({path.name}: {reason_of(error)}); remove it or choose another folder") from None
    return content


def differing_settings(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings in which two runs differ, for a person: "Lambda was 0.7, is now 0.5"; "" where none do."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {_shortened(old.get(key))}, is now {_shortened(new.get(key))}" for key in keys)


def _shortened(setting: Any) -> str:
    text = str(setting)
    return text if len(text) <= LONGEST_SETTING else f"{text[:12]}…"


# Losses


def write_losses(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Losses as CSV, atomically."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def read_losses(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows of a CSV of losses, as text.

    Raises:
        UserError: the file is missing, or has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if header != list(columns) or any(len(row) != len(columns) for row in rows):
            raise ValueError(f"its columns are not {','.join(columns)}")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({reason_of(error)})") from None
    return rows


# Disk space


def is_disk_error(error: Exception) -> bool:
    """Whether a write failed for the disk's sake; safetensors has an error type of its own, which is not imported."""
    return isinstance(error, DISK_ERRORS) or type(error).__name__ == "SafetensorError"


def warn_of_small_disk(folder: Path, needed: float) -> None:
    """Say before a training when the disk will not hold the next checkpoint and the finished model, `needed` bytes."""
    free = free_bytes(folder)
    if free < needed:
        say(
            f"warning: {folder}: {gigabytes(free)} free, but the next checkpoint and the finished model need "
            f"{gigabytes(needed)}; free some space while training runs"
        )


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
