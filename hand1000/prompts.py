"""What image_generation.py draws: prompts of the command line or of lists, and which of them a folder holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from core.runs.errors import UserError
from core.runs.files import read_paired_lines
from core.runs.photos import IMAGE_SUFFIXES
from core.runs.run import Run, check_content

RECORD = "generation.json"  # of a folder of pictures


class PicturesFacts(TypedDict):
    """What is taken from the record of a folder of pictures."""

    prompts: list[tuple[str, str]]  # names and prompts


def names_of_prompts(prompts: Sequence[str], num_images: int | None) -> tuple[list[str], list[str]]:
    """Names for prompts of the command line: `num_images` of a single one, else the first `num_images` of them."""
    chosen = list(prompts) * (num_images or 1) if len(prompts) == 1 else list(prompts)[:num_images]
    return [f"prompt_{place:03d}.png" for place in range(len(chosen))], chosen


def listed_prompts(names_file: Path, prompts_file: Path, num_images: int | None) -> tuple[list[str], list[str]]:
    """The file names and prompts of two lists.

    Raises:
        UserError: the lists do not agree, or a name is not one of a picture in the folder.
    """
    names, prompts = read_paired_lines(names_file, prompts_file)
    for number, name in enumerate(names, start=1):
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            endings = ", ".join(IMAGE_SUFFIXES)
            raise UserError(f"{names_file}: line {number}: '{name}' does not end in one of {endings}")
    return names[:num_images], prompts[:num_images]


def with_recorded_prompts(run: Run, names: Sequence[str], prompts: Sequence[str]) -> list[list[str]]:
    """Names and prompts of the folder's pictures, now and earlier; more or fewer of the same ones may follow.

    Raises:
        UserError: the folder holds pictures of other settings, names or prompts, or is not one of pictures.
    """
    wanted, record = [list(pair) for pair in zip(names, prompts, strict=True)], run.record()
    if record is None:
        return wanted
    check_content(run.path, record.facts, PicturesFacts)
    earlier = record.facts["prompts"]
    common = min(len(earlier), len(wanted))
    if earlier[:common] != wanted[:common]:
        raise UserError(f"{run.folder}: holds pictures of other file names or prompts; choose another {run.flag}")
    return max(wanted, earlier, key=len)
