"""Features of pictures for FID and KID: two protocols, whole pictures or hand crops, streamed from a folder.

The released scripts `cal_fid.py`, `cal_fid-h.py`, `cal_kid.py` and `cal_kid-h.py` each hold their own copy of this.
"""

import contextlib
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object

from core.metrics.extractors import (
    TORCHSCRIPT,
    Extractor,
    describe_extractor,
    extractor_file,
    load_inception,
    load_torchscript,
)
from core.metrics.pictures import HAND_CROPS, check_protocol, list_pictures, pictures_of_photo
from core.metrics.saved_features import Features, check_features, check_made_alike, is_features_file, load_features
from core.runs.errors import UserError
from core.runs.photos import map_photos
from core.runs.processes import counted, start_processes

PIXELS_A_CALL = 2**24  # of pictures in their own size; more would fill the GPU's memory


def features_of_both(
    real: str | Path,
    fake: str | Path,
    *,
    protocol: str = "released",
    hands: bool = False,
    hand_crop: str = "union",
    feature_extractor: str | Path | None = None,
    inception_weights: str | Path | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
) -> tuple[Features, Features]:
    """Features of two folders of pictures, or of `.npz` files that `save_features` wrote.

    Args:
        protocol: "released" (shorter side to 299, centre crop, torchvision's ImageNet Inception v3) or "standard"
            (torchmetrics' preparation and Inception v3).
        hands: take hand crops instead of pictures; pictures without a hand are left out.
        hand_crop: "union", one crop around all hands (at most 2) as in the released FID-H, or "each", every hand a
            crop of its own as in the released KID-H (which the released protocol squeezes to 299x299).
        feature_extractor: a TorchScript module, uint8 (N, 3, H, W) to (N, D), in place of Inception. The released
            protocol gives it 299x299 pictures, the standard one pictures of any size.
        inception_weights: local file of the protocol's Inception weights (default: torch hub's cache, or a download).
        batch_size: photos at a time.
        num_workers: processes that read pictures and find hands; 0 or 1 does it in this one. More need a caller
            with the usual `if __name__ == "__main__"`.

    Raises:
        UserError: no picture, an unreadable one, no hand at all, weights that are missing or unfit, features of
            another protocol, crop, extractor or dimension, NaN in features.
    """
    check_protocol(protocol)
    if hand_crop not in HAND_CROPS:
        raise UserError(f"no hand crop '{hand_crop}'; there are {' and '.join(HAND_CROPS)}")
    crop = hand_crop if hands else "whole"
    saved: dict[Path, Features] = {}
    folders: dict[Path, list[Path]] = {}  # and their pictures
    for source in (Path(real), Path(fake)):
        if is_features_file(source):
            saved[source] = load_features(source)
        else:
            folders[source] = list_pictures(source)
    check_made_alike(saved, protocol=protocol, crop=crop)
    if not folders and not feature_extractor and not inception_weights:
        name = saved[Path(real)].extractor  # nothing to compute
    else:
        if folders and not feature_extractor:
            check_not_by_own_module(saved)
        with start_processes().main_process_first():
            file = extractor_file(protocol, feature_extractor, inception_weights)
        name = describe_extractor(protocol, file, is_inception=not feature_extractor)
    check_made_alike(saved, extractor=name)
    sides = dict(saved)
    if folders:
        device = start_processes().device
        extractor = load_torchscript(file, device) if feature_extractor else load_inception(protocol, file, device)
        for folder, pictures in folders.items():
            features, without_hand = extract(
                pictures, extractor, protocol=protocol, crop=crop, batch_size=batch_size, num_workers=num_workers
            )
            if not len(features):
                raise UserError(f"{folder}: MediaPipe found no hand in its {counted(len(pictures), 'picture')}")
            sides[folder] = Features(features, str(folder), len(pictures), without_hand, protocol, crop, name)
    both = sides[Path(real)], sides[Path(fake)]
    check_features(both[0].features, both[1].features, (str(real), str(fake)))
    return both


def check_not_by_own_module(saved: Mapping[Path, Features]) -> None:
    """Raises UserError where saved features come from a TorchScript module: the other folder needs the same one."""
    for source, side in saved.items():
        if side.extractor.startswith(TORCHSCRIPT):
            raise UserError(f"{source}: its features come from a module of your own; give it as feature_extractor")


class Batch(NamedTuple):
    """The result of one batch, as processes send it to each other."""

    start: int  # number of its first photo
    features: np.ndarray | None = None  # (N, D), None where no photo has a picture to measure
    without_hand: int = 0
    error: str | None = None


def extract(
    paths: Sequence[Path], extractor: Extractor, *, protocol: str, crop: str, batch_size: int, num_workers: int
) -> tuple[np.ndarray, int]:
    """Features (N, D) of all pictures, in order, and how many photos had no hand.

    Under `accelerate launch` every process takes every n-th batch. The batches are the same ones whatever the number
    of processes, so the features are too.

    Raises:
        UserError: the first unreadable photo, or what the extractor does not take; on all processes.
    """
    state = start_processes()
    starts = range(0, len(paths), batch_size)[state.process_index :: state.num_processes]
    own = [paths[start : start + batch_size] for start in starts]
    done: list[Batch] = []
    function = functools.partial(pictures_of_photo, protocol=protocol, crop=crop)
    desc = f"Features of {paths[0].parent.name}"
    stream = map_photos(function, [path for batch in own for path in batch], num_workers=num_workers, desc=desc)
    with contextlib.closing(stream):
        for start, batch in zip(starts, own):
            try:
                photos = list(itertools.islice(stream, len(batch)))
                pictures = [picture for photo in photos for picture in photo]
                features = batch_features(extractor, pictures, state.device) if pictures else None
            except UserError as error:  # not raised here: the other processes have to hear of it
                done.append(Batch(start, error=str(error)))
                break
            done.append(Batch(start, features, sum(not photo for photo in photos)))
    done = sorted(gather_object(done), key=lambda batch: batch.start)
    for batch in done:
        if batch.error:
            raise UserError(batch.error)
    parts = [batch.features for batch in done if batch.features is not None]
    return joined(parts) if parts else np.empty((0, 0)), sum(batch.without_hand for batch in done)


@torch.inference_mode()
def batch_features(extractor: Extractor, pictures: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    """Features (N, D) float32 of pictures that may differ in size: a call of the extractor for each size, or several.

    Raises:
        UserError: the extractor gives pictures of different sizes different numbers of features.
    """
    rows: list[np.ndarray | None] = [None] * len(pictures)
    for shape in dict.fromkeys(picture.shape for picture in pictures):
        places = [place for place, picture in enumerate(pictures) if picture.shape == shape]
        at_a_time = max(1, PIXELS_A_CALL // (shape[1] * shape[2]))
        for start in range(0, len(places), at_a_time):
            some = places[start : start + at_a_time]
            stack = torch.from_numpy(np.stack([pictures[place] for place in some])).to(device)
            for place, row in zip(some, extractor(stack).float().cpu().numpy()):
                rows[place] = row
    return joined([row[None] for row in rows if row is not None])


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Several arrays of features as one, which must have the same D."""
    sizes = sorted({part.shape[1] for part in parts})
    if len(sizes) > 1:
        raise UserError(
            f"the extractor gives between {sizes[0]} and {sizes[-1]} features, depending on the size of the picture"
        )
    return np.concatenate(parts)
