"""Photos: listing, decoding, one pass over many in worker processes, and cutting them to a square."""

import collections
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from core.runs.errors import UserError
from core.runs.files import is_list_entry
from core.runs.processes import cpu_count, progress, worker_pool

Result = TypeVar("Result")
PHOTOS_A_TASK, TASKS_AHEAD = 2, 2  # of a worker process: enough to keep it busy, little enough for large photos
LONGEST_STRIP = 64  # times as long as wide: resized to 512 pixels it would take all memory
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


def list_photos(folder: Path) -> list[Path]:
    """All photos directly in `folder` (jpg, jpeg, png, webp in any case), sorted by name.

    Raises:
        UserError: the folder is missing or holds no photo, or one whose name a list cannot hold.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the photos should be there")
    photos = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not photos:
        raise UserError(f"{folder}: holds no photos ({', '.join(IMAGE_SUFFIXES)})")
    for photo in photos:
        if not is_list_entry(photo.name):
            reason = "is not UTF-8, or has a newline or a blank at an end"
            raise UserError(f"{folder}: the file name {photo.name!r} {reason}; rename it")
        check_is_file(photo)
    return sorted(photos, key=lambda path: path.name)


def load_photo(path: Path) -> Image.Image:
    """The photo as an upright RGB image: EXIF orientation applied, grey and transparent images converted.

    Raises:
        UserError: the file is missing, is not an image, is truncated, or a strip that no square can be cut from.
    """
    check_is_file(path)
    try:
        with Image.open(path) as image:
            if max(image.size) > LONGEST_STRIP * min(image.size):
                raise ValueError(f"a strip of {image.width} x {image.height} pixels")
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION))
            if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would cut off at 255
                image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
            image = image.convert("RGB")
            return image.transpose(turn) if turn is not None else image
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        reason = str(error).replace(str(path), "it").replace("\n", " ") or type(error).__name__
        raise UserError(f"{path}: not a readable image ({reason}); replace or remove it") from None


def check_is_file(path: Path) -> None:
    """Refuse folders and pipes, which would be waited for; raises UserError."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file; remove it")


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
    function: Callable[[Image.Image], Result],
    paths: Sequence[Path],
    *,
    num_workers: int | None = None,
    bad: list[UserError] | None = None,
    desc: str | None = None,
) -> Generator[Result, None, None]:
    """`function` of each photo, in the order of `paths`, computed by worker processes.

    Workers run only a little ahead of the caller, so that results do not pile up.

    Args:
        num_workers: how many processes (default: one per core); 0 or 1 does it in this one.
        bad: where given, the error of an unreadable photo is appended to it, and the photo yields nothing.
        desc: text of a progress bar (default: no bar).

    Raises:
        UserError: the first unreadable photo, unless `bad` is given.
    """
    with progress(total=len(paths), desc=desc, unit="photo", disable=desc is None) as bar:
        for result in _results(function, paths, num_workers):
            bar.update()
            if not isinstance(result, UserError):
                yield result
            elif bad is None:
                raise result
            else:
                bad.append(result)


def unchanged(photo: Image.Image) -> Image.Image:
    """For `map_photos`, where the decoded photos themselves are wanted."""
    return photo


def _results(
    function: Callable[[Image.Image], Result], paths: Sequence[Path], num_workers: int | None
) -> Generator[Result | UserError, None, None]:
    num_workers = min(cpu_count() if num_workers is None else num_workers, len(paths))
    if num_workers <= 1:
        yield from (_apply_to_photo(function, path) for path in paths)
        return
    pool = worker_pool(num_workers)
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
        photo = load_photo(path)
    except UserError as error:
        return error
    return function(photo)


def resize_and_crop(picture: Image.Image, size: int) -> Image.Image:
    """size x size pixels: shorter side resized (bilinear, antialiased), then the centre; as torchvision does it."""
    width, height = picture.size
    short = min(width, height)
    width, height = (int(size * width / short), int(size * height / short))
    left, top = round((width - size) / 2), round((height - size) / 2)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return picture.crop((left, top, left + size, top + size))
