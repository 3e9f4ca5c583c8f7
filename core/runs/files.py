"""List files with one entry a line, safe writing, locks, and fingerprints: the file conventions between the stages."""

import contextlib
import functools
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from filelock import FileLock, Timeout

from core.runs.errors import UserError
from core.runs.processes import is_main_process

LEFTOVERS = ".*.unfinished"  # temporary files and folders that a killed process left
LONGEST_NAME = 255  # bytes, of a file
CHUNK = 2**20  # bytes read at a time
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for a formula

# List files: one entry a line


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 list file, with or without newlines at its end.

    Raises:
        UserError: the file is missing, is not UTF-8, is empty, or has an empty line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable UTF-8 text file ({error})") from None
    # str.splitlines would also split at characters that may stand inside a caption (U+2028, form feed).
    lines = [line.strip() for line in text.rstrip("\r\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line:
            raise UserError(f"{path}: line {number} is empty; every line needs an entry")
    return lines


def read_paired_lines(names_file: Path, texts_file: Path) -> tuple[list[str], list[str]]:
    """File names and their texts, line by line from two files.

    Raises:
        UserError: the counts differ, or a name is none of a file in its folder, or listed twice.
    """
    names, texts = read_lines(names_file), read_lines(texts_file)
    if len(names) != len(texts):
        raise UserError(f"{names_file} has {len(names)} lines but {texts_file} has {len(texts)}; they must agree")
    seen: dict[PurePosixPath, int] = {}
    for number, name in enumerate(names, start=1):
        if leaves_folder(name):
            raise UserError(f"{names_file}: line {number}: '{name}' leaves its folder; give a plain file name")
        path = PurePosixPath(name)  # "a.png" and "./a.png" are the same file
        if not name.isprintable() or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
            raise UserError(f"{names_file}: line {number}: no file can have the name {name[:LONGEST_NAME]!r}")
        if path in seen:
            raise UserError(f"{names_file}: line {number}: '{name}' is already on line {seen[path]}")
        seen[path] = number
    for path, number in seen.items():
        if folder := next((parent for parent in path.parents if parent in seen), None):
            raise UserError(f"{names_file}: line {number}: '{path}' needs a folder of the name on line {seen[folder]}")
    return names, texts


def is_utf8(text: str) -> bool:
    """Whether a text can be written to a list file; file names and arguments may hold bytes that can't."""
    return text == text.encode("utf-8", "replace").decode()


def is_list_entry(name: str) -> bool:
    """Whether a file's name can stand on a line of a list and be read again."""
    return is_utf8(name) and name == name.strip() and "\n" not in name


def leaves_folder(name: str) -> bool:
    """Whether a listed name is absolute, has a drive, or climbs out by `..`, on any operating system."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or PurePosixPath(name).is_absolute() or ".." in windows.parts


# Writing


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` only once the block has ended without an error."""
    path = path.resolve()  # a link keeps pointing to the same file
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=LEFTOVERS[2:], dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        give_default_permissions(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` only once the block has ended without an error."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=LEFTOVERS[2:], dir=path.parent))
    try:
        yield temporary
        give_default_permissions(temporary)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_parts(folder: Path, *, last: str) -> Iterator[Path]:
    """A temporary folder to fill, whose files and folders replace those of the same name in `folder` at the end.

    Args:
        last: the part that makes the folder what it is, such as model_index.json; it is moved last.
    """
    with tempfile.TemporaryDirectory(prefix=".", suffix=LEFTOVERS[2:], dir=folder) as name:
        temporary = Path(name)
        yield temporary
        give_default_permissions(temporary)
        for part in sorted(temporary.iterdir(), key=lambda path: path.name == last):
            shutil.rmtree(folder / part.name, ignore_errors=True)
            os.replace(part, folder / part.name)


def remove_leftovers(folder: Path, of: str | None = None) -> None:
    """Remove what a killed process left half-written in `folder`, which must be locked.

    Args:
        of: only what was to become the folder of this name, where others work in `folder`, too.
    """
    for path in folder.rglob(LEFTOVERS) if of is None else folder.glob(f".{of}{LEFTOVERS}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text atomically, with newlines as they are."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a list file atomically, one entry a line."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def spreadsheet_text(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def nan_to_none(content: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(content, dict):
        return {key: nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [nan_to_none(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


@contextlib.contextmanager
def hold_lock(lock: Path, taken: str) -> Iterator[None]:
    """Hold a lock file during the block on the main process, making its folder; a killed process holds nothing.

    Raises:
        UserError: `taken`, where another process holds it.
    """
    if not is_main_process():
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(lock)
    try:
        file_lock.acquire(timeout=0)
    except Timeout:
        raise UserError(taken) from None
    try:
        yield
    finally:
        file_lock.release()


def give_default_permissions(path: Path) -> None:
    """Make a file, or a folder with all in it, as readable as new ones are; temporary ones are the owner's only."""
    mask = os.umask(0)
    os.umask(mask)
    for made in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not made.is_symlink():  # what a link points to is not ours
            made.chmod((0o777 if made.is_dir() else 0o666) & ~mask)


def free_bytes(folder: Path) -> int:
    """Free disk space where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_writable(folder: Path) -> None:
    """Refuse a folder that can't be made or written to, without making it.

    Raises:
        UserError
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"{existing}: is a file; choose another folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: no permission to write there; choose another folder")


def check_outputs(*outputs: Path | None, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse files that can't be written, without writing them.

    Args:
        inputs: files that are read, which no output may overwrite.

    Raises:
        UserError: one is a folder, an input or can't be written, or two are the same file.
    """
    given = list(filter(None, outputs))
    if len({output.resolve() for output in given}) < len(given):
        raise UserError(f"{given[-1]}: two outputs can't go to the same file")
    read = {path.resolve() for path in inputs if path} if given else set()
    for output in given:
        if output.is_dir():
            raise UserError(f"{output}: is a folder; give a file")
        if output.resolve() in read:
            raise UserError(f"{output}: is an input of this command; write to another file")
        check_writable(output.parent)


def sha256_of_files(paths: Sequence[Path]) -> str:
    """One SHA-256 over the names and contents of `paths`, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """A SHA-256 of a file, or of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        facts = file_path.stat()
        name = os.fsencode(file_path.relative_to(path))
        digest.update(name + b"\0" + _sha256(file_path, facts.st_size, facts.st_mtime_ns) + b"\n")
    return digest.hexdigest()


@functools.lru_cache(maxsize=2**16)
def _sha256(path: Path, size: int, changed: int) -> bytes:
    """Of a file of this size that was last changed then: a model of several gigabytes is read once a process."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def fingerprint_if_local(path: str | Path | None) -> str | None:
    """None for a model of the hub, whose name must do, and for no path at all."""
    return fingerprint(Path(path)) if path and Path(path).exists() else None


def model_identity(model: str | None) -> str | None:
    """The hash of a model on this machine, whatever its path, or the name of a model of the hub."""
    return fingerprint_if_local(model) or model
