"""Long lists made line by line: a journal that a killed run goes on with, and a record of what a finished list is.

call_BLIP2.txt              the list, written whole at the end
call_BLIP2.json             the settings it was made with
.call_BLIP2.journal.jsonl   while it is being made: a line of settings, then one record a line
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hand1000.cli import UserError, is_main_process
from hand1000.files import atomic_file
from hand1000.run_folder import differing_settings


def journal_path(output: Path) -> Path:
    return output.with_name(f".{output.stem}.journal.jsonl")


def is_finished(output: Path, settings: dict[str, Any]) -> bool:
    """Whether `output` is there already, made with these settings.

    Raises:
        UserError: it was made with others, or by other means.
    """
    if not output.exists():
        return False
    record = output.with_suffix(".json")
    try:
        made_with = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        made_with = None
    if made_with == settings:
        return True
    if journal_path(output).exists():  # killed while finishing
        return False
    reason = f"made with other settings ({differing_settings(made_with, settings)})" if made_with else "made otherwise"
    raise UserError(f"{output}: exists already, {reason}; move or delete it to make it again")


def read_journal(output: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of an unfinished run with these settings, without a last line that a kill has cut off.

    Raises:
        UserError: the unfinished run had other settings.
    """
    path = journal_path(output)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is cut off
    try:
        first, *records = (json.loads(line) for line in lines)
    except ValueError:
        first, records = {}, []
    if first != settings:
        raise UserError(
            f"{path}: an unfinished run with other settings ({differing_settings(first, settings)}); "
            "finish it with those, or delete that file to begin anew"
        )
    return records


def write_journal(output: Path, settings: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Begin a journal, or cut an old one to `records`."""
    with atomic_file(journal_path(output)) as temporary:
        temporary.write_text("".join(map(_line, (settings, *records))), encoding="utf-8")


def append_journal(output: Path, records: Sequence[dict[str, Any]]) -> None:
    with open(journal_path(output), "a", encoding="utf-8", newline="\n") as file:
        file.write("".join(map(_line, records)))


def finish(output: Path, settings: dict[str, Any], lists: dict[Path, Sequence[str]], **report: Any) -> None:
    """Write the finished lists and their record, then drop the journal."""
    for path, lines in lists.items():
        with atomic_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    with atomic_file(output.with_suffix(".json")) as temporary:
        content = {"settings": settings, **report}
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    journal_path(output).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold a list during the block on the main process; a killed process holds nothing.

    Raises:
        UserError: another run is making it.
    """
    if not is_main_process():
        yield
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{output.stem}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{output}: another run is making it") from None
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
