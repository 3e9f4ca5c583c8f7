"""Long lists made line by line: a `Run` whose journal lets a killed one resume where it stopped.

call_BLIP2.txt              the list, written whole at the end
call_BLIP2.json             the run's record: its settings, and the hashes of the finished lists
.call_BLIP2.journal.jsonl   while the list is being made: one JSON object for each line of it
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.runs.errors import UserError, reason_of
from core.runs.files import write_lines, write_text
from core.runs.run import Run
from core.runs.schema import misfit, parsed_json


def list_run(output: Path, settings: dict[str, Any], *, what: str, flag: str = "--data_root") -> Run:
    """The run that makes the list `output`; its record lies beside it."""
    return Run(output.with_suffix(".json"), settings, what=what, owns_folder=False, flag=flag)


def lists_are_finished(run: Run, lists: Sequence[Path]) -> bool:
    """Whether the lists are there already, made with the run's settings and not changed since.

    Raises:
        UserError: they were made with others, or by other means, or changed.
    """
    record = run.record()
    if record is None:
        there = [path for path in lists if path.exists()]
        if there:
            raise UserError(f"{there[0]}: exists already, made otherwise; move or delete it to make it again")
        return False
    if not run.is_finished():
        return False
    hashes = record.facts.get("lists")
    for path in lists:
        if not isinstance(hashes, dict) or not path.exists() or _hash(path) != hashes.get(path.name):
            names = " and ".join(path.name for path in (*lists, run.path))
            raise UserError(f"{path}: changed or lost since it was made; restore it, or delete {names}")
    return True


def read_journal(run: Run, entry: type, values: Sequence[str] | None) -> list[dict[str, Any]]:
    """The entries of an unfinished run, without a last line that a kill has cut off.

    Args:
        entry: the TypedDict that each entry is.
        values: what each entry is about: entry n holds `values[n]` in the first of its fields (None: not checked).

    Raises:
        UserError: it is damaged, or its entries are about something else.
    """
    path = journal_path(run)
    if run.record() is None or not path.exists():  # a journal without its record may have had other settings
        return []
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is cut off
        entries = [parsed_json(line) for line in lines]
        if problem := misfit(entries, list[entry]):  # type: ignore[valid-type]
            raise ValueError(problem)
        about = next(iter(entry.__annotations__))
        found = [one[about] for one in entries]
        if values is not None and found != list(values[: len(entries)]):
            raise ValueError("its entries are not in order")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({reason_of(error)}); delete it to start over") from None
    return entries


def begin_journal(run: Run, entries: Sequence[dict[str, Any]]) -> None:
    """Mark the run as unfinished and start its journal, or cut an old one to `entries`."""
    write_text(journal_path(run), "".join(map(_line, entries)))
    run.begin()  # after the journal, which may be left from a run whose record was removed


def append_journal(run: Run, entries: Sequence[dict[str, Any]]) -> None:
    with open(journal_path(run), "a", encoding="utf-8", newline="\n") as file:
        file.write("".join(map(_line, entries)))


def finish_lists(run: Run, lists: dict[Path, Sequence[str]], **facts: Any) -> None:
    """Write the finished lists and their record, then remove the journal."""
    for path, lines in lists.items():
        write_lines(path, lines)
    run.finish(lists={path.name: _hash(path) for path in lists}, **facts)
    journal_path(run).unlink(missing_ok=True)


def journal_path(run: Run) -> Path:
    return run.path.with_name(f".{run.path.stem}.journal.jsonl")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
