"""Long lists made line by line: a journal that a killed run goes on with, and a record of what a finished list is.

call_BLIP2.txt              the list, written whole at the end
call_BLIP2.json             the settings it was made with
.call_BLIP2.journal.jsonl   while it is being made: a line of settings, then one record a line
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hand1000.cli import UserError
from hand1000.files import atomic_file, hold
from hand1000.run_folder import differing_settings


def journal_path(output: Path) -> Path:
    return output.with_name(f".{output.stem}.journal.jsonl")


def is_finished(lists: Sequence[Path], settings: dict[str, Any]) -> bool:
    """Whether the lists are there already, made with these settings and not changed since. The last is the output.

    Raises:
        UserError: they were made with others, or by other means, or changed.
    """
    output = lists[-1]
    there = [path for path in lists if path.exists()]
    if not there:
        return False
    record = _read_record(output)
    if record is None and journal_path(output).exists():  # killed while finishing
        return False
    if record is None:
        raise UserError(f"{there[0]}: exists already, made otherwise; move or delete it to make it again")
    if record["settings"] != settings:
        reason = differing_settings(record["settings"], settings)
        raise UserError(f"{output}: exists already, made with other settings ({reason}); move or delete it first")
    for path in lists:
        if not path.exists() or _hash(path) != record["lists"].get(path.name):
            names = " and ".join(path.name for path in lists)
            raise UserError(f"{path}: changed or lost since it was made; restore it, or delete {names}")
    return True


def _read_record(output: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
        return record if {"settings", "lists"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_journal(output: Path, settings: dict[str, Any], key: str, values: Sequence[str]) -> list[dict[str, Any]]:
    """The records of an unfinished run with these settings, without a last line that a kill has cut off.

    Args:
        key, values: what each record is about: record n holds `values[n]` under `key`.

    Raises:
        UserError: the unfinished run had other settings, or its records are about something else.
    """
    path = journal_path(output)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is cut off
    try:
        first, *records = (dict(json.loads(line)) for line in lines)
        of = [record[key] for record in records]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path}: damaged; delete it to begin anew") from None
    if first == settings and of != list(values[: len(of)]):
        raise UserError(f"{path}: its records are not in order; delete it to begin anew")
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
        content = {"settings": settings, "lists": {path.name: _hash(path) for path in lists}, **report}
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    journal_path(output).unlink(missing_ok=True)


def locked(output: Path) -> contextlib.AbstractContextManager[None]:
    """Hold a list; raises UserError where another run is making it."""
    return hold(output.with_name(f".{output.stem}.lock"), f"{output}: another run is making it")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
