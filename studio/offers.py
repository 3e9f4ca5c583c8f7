"""What the owner of the page offers: models, features and folders, each by the name that the page shows.

A visitor chooses a name. What is not offered is refused, so that no path of a visitor is ever opened.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from attentionhand.runs import TRAINING, finished_training
from core.metrics.pictures import list_pictures
from core.runs.errors import UserError
from core.runs.run import FINISHED, read_record
from hand1000.gesture_feature import load_gesture_feature
from hand1000.trained import RECORD, own_feature, trained_model

Item = TypeVar("Item")
RENDERED = ("call", "palm", "peace")  # gestures of which hands are drawn on request, to be measured


class Offers(NamedTuple):
    """Everything that the page may open, all of it named by the owner."""

    base: str  # Stable Diffusion: a diffusers folder, a single file or a hub id
    original_config: str | None
    config: str | None
    runs: dict[str, Path]  # Hand1000's
    features: dict[str, Path]
    weights: dict[str, Path]  # AttentionHand's
    folders: dict[str, Path]  # of pictures
    resolution: int | None  # pixels a side that the models draw; None for their own
    mixed_precision: str
    metrics: dict[str, Any]  # protocol, feature_extractor, inception_weights of `core.metrics`
    own_folder: Path  # for everything that the page writes


def offered(choices: Mapping[str, Item], name: object, what: str) -> Item:
    """What the owner offers under a name that a visitor sent.

    Raises:
        UserError: nothing of that name is offered.
    """
    if not isinstance(name, str) or name not in choices:
        raise UserError(f"{what} '{str(name)[:80]}' is not offered here; choose one of the list")
    return choices[name]


def named(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths by their names in the page: as the owner wrote them, but from the current folder on; each once."""
    here = Path.cwd()
    return {(path.relative_to(here) if path.is_relative_to(here) else path).as_posix(): path for path in paths}


def hand1000_runs(given: Iterable[Path], demo: Path) -> dict[str, Path]:
    """The runs that the owner gave, and the finished ones of `make demo`.

    Raises:
        UserError: a given one is missing, unfinished or damaged.
    """
    for path in given:
        trained_model(path)
    return named([*given, *finished(demo.glob("*/seed_*/hand1000/run"), RECORD)])


def gesture_features(given: Iterable[Path], runs: Iterable[Path], demo: Path) -> dict[str, Path]:
    """The gesture features that the owner gave, those that lie in the offered runs, and those of `make demo`.

    Raises:
        UserError: a given one is missing or is no feature.
    """
    for path in given:
        load_gesture_feature(path)
    own = [feature for run in runs if (feature := own_feature(run))]
    return named([*given, *own, *sorted(demo.glob("data/*.npy"))])


def attentionhand_weights(given: Iterable[Path], demo: Path) -> dict[str, Path]:
    """The weights that the owner gave, and the finished trainings of `make demo-attentionhand`, AttentionHand first.

    Raises:
        UserError: a given one is missing or of an unfinished training.
    """
    for path in given:
        if not path.exists():
            raise UserError(f"{path}: no such run folder or file (--weights)")
        finished_training(path)
    found = finished(demo.glob("seed_*/*/run"), TRAINING)
    return named([*given, *sorted(found, key=lambda path: path.parent.name != "attentionhand")])


def picture_folders(given: Iterable[Path], demos: Iterable[Path]) -> dict[str, Path]:
    """The folders that the owner gave to measure, and those of the demonstrations: test photos and drawn pictures.

    Raises:
        UserError: a given one is missing or holds no pictures.
    """
    for path in given:
        list_pictures(path)
    patterns = ("data/*_test", "*/seed_*/*/pictures", "data/test/rgb", "seed_*/*/pictures")
    found = [path for demo in demos for pattern in patterns for path in sorted(demo.glob(pattern)) if path.is_dir()]
    return named([*given, *found])


def finished(folders: Iterable[Path], record: str) -> list[Path]:
    """The folders whose work is finished, sorted; damaged ones are left out."""
    return [folder for folder in sorted(folders) if is_finished(folder / record)]


def is_finished(record: Path) -> bool:
    try:
        content = read_record(record)
    except UserError:
        return False
    return content is not None and content.status == FINISHED
