"""Photos, list files and safe writing: the file conventions between the stages."""

import collections
import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from hand1000.cli import UserError, cpu_count, is_main_process

Result = TypeVar("Result")
PHOTOS_A_TASK, TASKS_AHEAD = 2, 2  # of a worker process: enough to keep it busy, little enough for large photos
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
ORIENTATION = 0x0112  # EXIF: how to turn the stored picture to see it upright; 1 is as it is
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Photos


def list_photos(folder: Path) -> list[Path]:
    """All photos directly in `folder` (jpg, jpeg, png, webp in any case), sorted by name.

    Raises:
        UserError: the folder is missing or holds no photo.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the photos should be there")
    photos = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not photos:
        raise UserError(f"{folder}: holds no photos ({', '.join(IMAGE_SUFFIXES)})")
    for photo in photos:
        if not is_utf8(photo.name):
            raise UserError(f"{folder}: the file name {photo.name!r} is not UTF-8; rename it")
    return sorted(photos, key=lambda path: path.name)


def load_photo(path: Path) -> Image.Image:
    """The photo as an upright RGB image: EXIF orientation applied, grey and transparent images converted.

    Raises:
        UserError: the file is missing, is not an image, or is truncated.
    """
    try:
        with Image.open(path) as image:
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION))
            if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would cut off at 255
                image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
            image = image.convert("RGB")
            return image.transpose(turn) if turn is not None else image
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        reason = str(error).replace(str(path), "it").replace("\n", " ") or type(error).__name__
        raise UserError(f"{path}: not a readable image ({reason}); replace or remove it") from None


def unreadable_photos(paths: Sequence[Path]) -> list[UserError | None]:
    """Decode every photo once, on all cores: None for each good one, the error for each bad one, in order."""

    def check(path: Path) -> UserError | None:
        try:
            load_photo(path)
        except UserError as error:
            return error
        return None

    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(progress(pool.map(check, paths), total=len(paths), desc="Checking photos", unit="photo"))


def map_photos(
    function: Callable[[Image.Image], Result], paths: Sequence[Path], *, num_workers: int | None = None
) -> Generator[Result | UserError, None, None]:
    """`function` of each photo, in the order of `paths`, computed by worker processes (default: one a core).

    An unreadable photo yields its UserError, for the caller to raise or to count. Workers run only a little ahead of
    the caller, so that results do not pile up.
    """
    num_workers = min(cpu_count() if num_workers is None else num_workers, len(paths))
    if num_workers <= 1:
        yield from (_apply_to_photo(function, path) for path in paths)
        return
    # Processes, because MediaPipe's objects can't be shared; spawned, because forking after torch has started
    # its threads can hang.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
    waiting: collections.deque[Future] = collections.deque()
    try:
        for start in range(0, len(paths), PHOTOS_A_TASK):
            waiting.append(pool.submit(_apply_to_photos, function, paths[start : start + PHOTOS_A_TASK]))
            if len(waiting) > TASKS_AHEAD * num_workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # also when the caller stops at the first unreadable photo


def _apply_to_photos(function: Callable[[Image.Image], Result], paths: Sequence[Path]) -> list[Result | UserError]:
    return [_apply_to_photo(function, path) for path in paths]


def _apply_to_photo(function: Callable[[Image.Image], Result], path: Path) -> Result | UserError:
    try:
        return function(load_photo(path))
    except UserError as error:
        return error


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
        UserError: the counts differ, or a name is listed twice or leaves its folder.
    """
    names, texts = read_lines(names_file), read_lines(texts_file)
    if len(names) != len(texts):
        raise UserError(f"{names_file} has {len(names)} lines but {texts_file} has {len(texts)}; they must agree")
    seen: dict[PurePosixPath, int] = {}
    for number, name in enumerate(names, start=1):
        if leaves_folder(name):
            raise UserError(f"{names_file}: line {number}: '{name}' leaves its folder; give a plain file name")
        path = PurePosixPath(name)  # "a.png" and "./a.png" are the same file
        if path in seen:
            raise UserError(f"{names_file}: line {number}: '{name}' is already on line {seen[path]}")
        seen[path] = number
    return names, texts


def is_utf8(text: str) -> bool:
    """Whether a text can be written to a list file; file names and arguments may hold bytes that can't."""
    return text == text.encode("utf-8", "replace").decode()


def leaves_folder(name: str) -> bool:
    """Whether a listed name is absolute, has a drive, or climbs out by `..`, on any operating system."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or PurePosixPath(name).is_absolute() or ".." in windows.parts


# Writing


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path` only once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # always the same: what a killed run left is written over
    try:
        yield temporary
        give_default_permissions(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` only once the block has ended without an error."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        give_default_permissions(temporary)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def hold(lock: Path, taken: str) -> Iterator[None]:
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
    """Make a file, or all files in a folder, as readable as new files are; safetensors writes for the owner only."""
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():  # what a link points to is not ours
            file.chmod(0o666 & ~mask)


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


def sha256_of_files(paths: Sequence[Path]) -> str:
    """One SHA-256 over the names and contents of `paths`, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """A quick SHA-256 of a large file, or of all files in a folder: names, sizes, first and last megabyte of each."""
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        size = file_path.stat().st_size
        digest.update(f"{file_path.relative_to(path)}\0{size}\n".encode())
        with open(file_path, "rb") as file:
            digest.update(file.read(2**20))
            file.seek(max(0, size - 2**20))
            digest.update(file.read())
    return digest.hexdigest()


def progress(iterable=None, **kwargs) -> tqdm:
    """A progress bar on the main process only."""
    return tqdm(iterable, disable=not is_main_process(), dynamic_ncols=True, **kwargs)
