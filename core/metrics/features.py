"""Features of pictures for FID and KID: two protocols, whole pictures or hand crops, streamed from a folder.

The released scripts `cal_fid.py`, `cal_fid-h.py`, `cal_kid.py` and `cal_kid-h.py` each hold their own copy of this.
"""

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.functional as TF
from accelerate import PartialState
from accelerate.utils import gather_object

from core.metrics.distances import PROTOCOLS, check_features
from core.metrics.pictures import pictures_of_photo
from core.runs.errors import UserError
from core.runs.files import atomic_file, fingerprint
from core.runs.photos import list_photos, map_photos
from core.runs.processes import processes_need_cpu, progress

INCEPTION_URLS = {
    "released": "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",  # ImageNet1K_V1
    "standard": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
}
INCEPTION_NAMES = {"released": "torchvision Inception v3", "standard": "TensorFlow Inception v3 of 2015"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS_A_CALL = 2**24  # of pictures in their own size; more would fill the GPU's memory
Extractor = Callable[[torch.Tensor], torch.Tensor]  # uint8 (N, 3, H, W) -> float (N, D)


class Features(NamedTuple):
    """Features of a folder's pictures, and all that makes them comparable with others."""

    features: np.ndarray  # (N, D) float32, one row a picture or hand crop
    source: str  # the folder
    images: int  # pictures read
    without_hand: int  # of these left out, because MediaPipe found no hand (hand crops only)
    protocol: str  # "released" or "standard"
    crop: str  # "whole" picture, "union" of its hands, or "each" hand
    extractor: str  # its kind and the fingerprint of its weights


def features_of_both(
    real: str | Path,
    fake: str | Path,
    *,
    protocol: str = "released",
    hands: bool = False,
    hand_crop: str = "union",
    feature_extractor: Path | None = None,
    inception_weights: Path | None = None,
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
            protocol hands it 299x299 pictures, the standard one pictures of any size.
        inception_weights: local file of the protocol's Inception weights (default: torch hub's cache, or a download).
        num_workers: processes that read pictures and find hands; 0 or 1 does it in this one. More need a caller
            with the usual `if __name__ == "__main__"`.

    Raises:
        UserError: no picture, an unreadable one, no hand at all, weights that are missing or unfit, features of
            another protocol, crop, extractor or dimension, NaN in features.
    """
    if hand_crop not in ("union", "each") or protocol not in PROTOCOLS:
        raise UserError(f"no hand crop '{hand_crop}' or no protocol '{protocol}'")
    crop = hand_crop if hands else "whole"
    sides = [load_features(Path(side)) if is_features_file(side) else list_photos(Path(side)) for side in (real, fake)]
    saved = {source: side for source, side in zip((real, fake), sides) if isinstance(side, Features)}
    _check_made_alike(saved, protocol=protocol, crop=crop)
    for source, side in saved.items():
        if len(saved) < len({real, fake}) and not feature_extractor and side.extractor.startswith("TorchScript"):
            raise UserError(f"{source}: its features come from a module of your own; pass it as --feature_extractor")
    if feature_extractor or inception_weights or len(saved) < len({real, fake}):
        state = PartialState(cpu=processes_need_cpu())
        with state.main_process_first():
            weights = feature_extractor or inception_file(protocol, inception_weights)
        extractor_name = describe_extractor(protocol, weights, is_inception=not feature_extractor)
    else:
        extractor_name = saved[real].extractor
    _check_made_alike(saved, extractor=extractor_name)

    if len(saved) < len({real, fake}):
        load = load_torchscript if feature_extractor else INCEPTION_LOADERS[protocol]
        extractor = load(weights, state.device)
    results = []
    for side, source in zip(sides, (real, fake)):
        if not isinstance(side, Features):
            features, without_hand = extract(
                side, extractor, protocol=protocol, crop=crop, batch_size=batch_size, num_workers=num_workers
            )
            if not len(features):
                raise UserError(f"{source}: MediaPipe found no hand in any of its {len(side)} pictures")
            side = Features(features, str(source), len(side), without_hand, protocol, crop, extractor_name)
        results.append(side)
    check_features(results[0].features, results[1].features, (str(real), str(fake)))
    return results[0], results[1]


# One pass over a folder


def extract(
    paths: Sequence[Path], extractor: Extractor, *, protocol: str, crop: str, batch_size: int, num_workers: int
) -> tuple[np.ndarray, int]:
    """Features (N, D) of all pictures, in order, and how many photos had no hand.

    Under `accelerate launch` every process takes every n-th batch. The batches are the same ones whatever the number
    of processes, so the features are too.

    Raises:
        UserError: the first unreadable photo, on all processes.
    """
    state = PartialState(cpu=processes_need_cpu())
    batches = [range(start, min(start + batch_size, len(paths))) for start in range(0, len(paths), batch_size)]
    own = batches[state.process_index :: state.num_processes]
    results: list[tuple[int, np.ndarray | None, int, str | None]] = []  # first photo, features, without a hand, error
    desc = f"Features of {paths[0].parent.name}"
    function = functools.partial(pictures_of_photo, protocol=protocol, crop=crop)
    stream = map_photos(function, [paths[index] for batch in own for index in batch], num_workers=num_workers)
    with contextlib.closing(stream), progress(total=sum(map(len, own)), desc=desc, unit="image") as bar:
        for batch in own:
            photos = list(itertools.islice(stream, len(batch)))
            errors = [photo for photo in photos if isinstance(photo, UserError)]
            if errors:
                results.append((batch[0], None, 0, str(errors[0])))
                break  # not raised here: the other processes have to hear of it
            pictures = [picture for photo in photos if not isinstance(photo, UserError) for picture in photo]
            try:
                if pictures:
                    results.append((batch[0], batch_features(extractor, pictures, state.device), 0, None))
            except UserError as error:
                results.append((batch[0], None, 0, str(error)))
                break
            results.append((batch[0], None, sum(not photo for photo in photos), None))
            bar.update(len(photos))
    results = sorted(gather_object(results), key=lambda result: result[0])
    for *_, error in results:
        if error:
            raise UserError(error)
    features = [features for _, features, *_ in results if features is not None]
    return _joined(features) if features else np.empty((0, 0)), sum(missing for *_, missing, _ in results)


def _joined(features: Sequence[np.ndarray]) -> np.ndarray:
    sizes = sorted({part.shape[1] for part in features})
    if len(sizes) > 1:
        raise UserError(f"the extractor gives from {sizes[0]} to {sizes[-1]} features, by the size of the picture")
    return np.concatenate(features)


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
    return _joined([row[None] for row in rows if row is not None])


# Extractors


def inception_file(protocol: str, given: Path | None = None) -> Path:
    """The protocol's Inception weights: the given file, torch hub's cached one, or a download into that cache.

    Raises:
        UserError: the file is missing, or could not be fetched.
    """
    if given:
        if not given.is_file():
            raise UserError(f"{given}: no such file; --inception_weights takes the file {INCEPTION_URLS[protocol]}")
        return given
    url = INCEPTION_URLS[protocol]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = cached.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix)
        except Exception as error:  # URLError, HTTPError, a wrong hash, ssl
            raise UserError(
                f"the {INCEPTION_NAMES[protocol]} weights could not be fetched ({error}); get {url} on a machine "
                "with network and pass it as --inception_weights FILE"
            ) from None
    return cached


def describe_extractor(protocol: str, weights: Path, *, is_inception: bool) -> str:
    """By what features remember their extractor: its kind and the fingerprint of its weights.

    Raises:
        UserError: no such file.
    """
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; --feature_extractor takes a TorchScript module")
    return f"{INCEPTION_NAMES[protocol] if is_inception else 'TorchScript'} {fingerprint(weights)[:16]}"


def load_torchvision_inception(weights: Path, device: torch.device) -> Extractor:
    """Released: torchvision's Inception v3 without its last layer, on ImageNet-normalised pictures; 2,048 features."""
    from torchvision.models import inception_v3

    # transform_input is what torchvision sets together with its own weights.
    network = inception_v3(weights=None, transform_input=True, init_weights=False)
    try:
        network.load_state_dict(_load_state_dict(weights, "released"))
    except RuntimeError:
        raise UserError(f"{weights}: not the {INCEPTION_NAMES['released']} weights; {_get('released')}") from None
    network.fc = torch.nn.Identity()
    network.eval().to(device)
    return lambda pictures: network(TF.normalize(pictures / 255, IMAGENET_MEAN, IMAGENET_STD))


def load_torchmetrics_inception(weights: Path, device: torch.device) -> Extractor:
    """Standard: the network of torchmetrics' FID and KID, which also resizes; 2,048 features."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    _load_state_dict(weights, "standard")  # torch-fidelity opens any pickle; this one has proved to hold tensors only
    try:
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
    except RuntimeError:
        raise UserError(f"{weights}: not the {INCEPTION_NAMES['standard']} weights; {_get('standard')}") from None
    return network.to(device)


INCEPTION_LOADERS = {"released": load_torchvision_inception, "standard": load_torchmetrics_inception}


def load_torchscript(path: Path, device: torch.device) -> Extractor:
    """A user's own extractor.

    Raises:
        UserError: no TorchScript module; and, when it is called, one that fails or whose result is not (N, D).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, but it opens without its class
            module = torch.jit.load(str(path), map_location=device).eval()
    except Exception:  # RuntimeError, ValueError, UnpicklingError, ...
        raise UserError(f"{path}: not a TorchScript module; torch.jit.script(module).save(FILE) writes one") from None

    def extractor(pictures: torch.Tensor) -> torch.Tensor:
        shape = tuple(pictures.shape)
        try:
            features = module(pictures)
        except Exception as error:  # what a module raises by itself is no RuntimeError
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"{path}: the extractor failed on uint8 pictures of shape {shape}: {reason}") from None
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(pictures):
            found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise UserError(f"{path}: the extractor gave {found} for uint8 pictures of shape {shape}, not (N, D)")
        return features

    return extractor


def _load_state_dict(path: Path, protocol: str) -> dict[str, torch.Tensor]:
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # half a dozen kinds for files that are no checkpoint
        state_dict = None
    if not isinstance(state_dict, dict):
        raise UserError(f"{path}: not a file of weights that torch.load(weights_only=True) opens; {_get(protocol)}")
    return state_dict


def _get(protocol: str) -> str:
    return f"get {INCEPTION_URLS[protocol]} for protocol {protocol}"


# Saved features


def is_features_file(source: str | Path) -> bool:
    return Path(source).suffix.lower() == ".npz"


def save_features(path: Path, features: Features) -> None:
    """Write features and what made them to an `.npz` that `load_features` reads."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **features._asdict())


def load_features(path: Path) -> Features:
    """Read what `save_features` wrote.

    Raises:
        UserError: no such file, or another kind of file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] if name == "features" else file[name].item() for name in Features._fields}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; --save_features writes one") from None
    except Exception:  # not a zip, not an array, a field missing
        raise UserError(f"{path}: not a file of features; --save_features writes one") from None
    return Features(**values)


def _check_made_alike(saved: dict[str | Path, Features], **wanted: str) -> None:
    for path, side in saved.items():
        for name, value in wanted.items():
            if getattr(side, name) != value:
                raise UserError(
                    f"{path}: its features were made with {name} '{getattr(side, name)}', not '{value}'; "
                    "make them again or change this run's options"
                )
