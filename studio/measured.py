"""The tab of the metrics: two folders of pictures to FID, KID, both on hand crops, and HAND-CONF, with intervals."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.hands.fingers import GESTURE_FINGERS
from core.metrics.pictures import list_pictures
from core.metrics.scores import DIRECTIONS, NO_SCORE, Score, distances_of_folders, hand_scores
from core.metrics.table import Cell, extractor_note, markdown, score_text
from core.runs.errors import UserError
from core.runs.files import atomic_folder
from core.runs.processes import counted, progress
from studio.jobs import part
from studio.offers import RENDERED, Offers, offered
from studio.uploads import uploaded_folder
from synthetic_hands.make_dataset import write_photo

UPLOADED = "the pictures that I upload"
RENDERED_NAME = "rendered hands: {}"
RENDERED_PICTURES, RENDERED_SIZE = 24, 64
NO_GESTURE = "no gesture"
METRICS = ("FID", "KID", "FID-H", "KID-H", "HAND-CONF", "hand found", "gesture accuracy")
IN_WORDS = {
    "FID": "distance between the two sets of pictures",
    "KID": "another such distance, steadier with few pictures",
    "FID-H": "FID of the hands, cut out",
    "KID-H": "KID of the hands, cut out",
    "HAND-CONF": "how sure MediaPipe is which hand each one is",
    "hand found": "pictures in which MediaPipe finds a hand",
    "gesture accuracy": "pictures with a hand that extends exactly the gesture's fingers",
}
UNBIASED_FROM = 2048  # pictures


def choices(offers: Offers) -> list[str]:
    """The names of the folders that can be measured."""
    return [*offers.folders, *(RENDERED_NAME.format(gesture) for gesture in RENDERED), UPLOADED]


def measure(
    offers: Offers,
    real: tuple[str, Sequence[Path]],
    fake: tuple[str, Sequence[Path]],
    gesture: str,
    *,
    resamples: int,
    seed: int,
) -> str:
    """Every metric of two folders, as Markdown.

    Args:
        real, fake: each a name of `choices`, and the uploaded pictures.
        gesture: of HaGRID, for the gesture accuracy, or `NO_GESTURE`.
        resamples: of the intervals.

    Raises:
        UserError: a folder or gesture that is not offered, pictures that can't be read, the same folder twice.
    """
    if gesture != NO_GESTURE:
        offered(GESTURE_FINGERS, gesture, "the gesture")
    if real[0] == fake[0] != UPLOADED:
        raise UserError("choose two different folders: a folder has no distance from itself")
    with tempfile.TemporaryDirectory(dir=offers.own_folder) as name:
        work = Path(name)
        photos, drawn = (folder_of(offers, *side, work / kind) for side, kind in ((real, "real"), (fake, "generated")))
        options: dict[str, Any] = {"resamples": resamples, "seed": seed, "num_workers": 1}
        try:
            with part("FID and KID"):
                scores = distances_of_folders(photos, drawn, cache=work, **offers.metrics, **options)
            with part("Hands"):
                scores |= hand_scores(drawn, gesture=gesture, **options)
        except UserError as error:
            raise UserError(without_folder(str(error), work)) from None
        return report(scores, len(list_pictures(photos)), len(list_pictures(drawn)), offers)


def without_folder(text: str, folder: Path) -> str:
    """A message without the place of the page's own folder."""
    return text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")


def folder_of(offers: Offers, choice: str, uploads: Sequence[Path], target: Path) -> Path:
    """The folder of a choice, made where it is one of uploads or of rendered hands.

    Raises:
        UserError: not offered, or unusable uploads.
    """
    if choice == UPLOADED:
        return uploaded_folder(uploads, target)
    rendered = {RENDERED_NAME.format(gesture): gesture for gesture in RENDERED}
    if choice in rendered:
        return rendered_folder(offers.own_folder / "rendered" / rendered[choice], rendered[choice])
    return offered(offers.folders, choice, "the folder")


def rendered_folder(folder: Path, gesture: str) -> Path:
    """A folder of hands drawn by `synthetic_hands`, made when it is first needed."""
    if not folder.is_dir():
        with part(f"Rendering hands: {gesture}"), atomic_folder(folder) as unfinished:
            for number in progress(range(RENDERED_PICTURES), desc="Rendering", unit="picture", mininterval=0):
                write_photo(gesture, [0, number], unfinished / f"{number:03}.png", {"size": RENDERED_SIZE})
    return folder


def report(scores: dict[str, Score], real: int, fake: int, offers: Offers) -> str:
    """The scores as a table, and how to read it."""
    rows = [["metric", "value and 95 % interval", ""]]
    for metric in METRICS:
        if metric in scores and (metric != "gesture accuracy" or not math.isnan(scores[metric].value)):
            arrow = "↑" if DIRECTIONS[metric] > 0 else "↓"
            rows.append([f"{metric} {arrow}", score_text(metric, scores.get(metric, NO_SCORE)), IN_WORDS[metric]])
    notes = [
        f"{counted(real, 'real picture')}, {counted(fake, 'generated one')}. ↓: less is better, ↑: more is better."
    ]
    notes.append(extractor_note(offers.metrics["protocol"], offers.metrics["feature_extractor"]))
    if min(real, fake) < UNBIASED_FROM:
        notes.append(f"With fewer than {UNBIASED_FROM} pictures FID is biased upwards: compare only equal numbers.")
    return f"{markdown([[Cell(text) for text in row] for row in rows])}\n{' '.join(notes)}"
