"""Feature extractors: the Inception v3 of each protocol, or a TorchScript module of the user's own."""

import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision.transforms.functional as TF

from core.runs.errors import UserError, reason_of
from core.runs.files import fingerprint

INCEPTION_URLS = {
    "released": "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",  # ImageNet1K_V1
    "standard": "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
}
INCEPTION_NAMES = {"released": "torchvision Inception v3", "standard": "TensorFlow Inception v3 of 2015"}
TORCHSCRIPT = "TorchScript"
FILE_OPERATIONS = re.compile(rb"\b(?:save|from_file)\s*\(")  # of TorchScript: all that reach beyond its tensors
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Extractor = Callable[[torch.Tensor], torch.Tensor]  # uint8 (N, 3, H, W) -> float (N, D)


def extractor_file(protocol: str, feature_extractor: str | Path | None, inception_weights: str | Path | None) -> Path:
    """The file that features come from: the given extractor, or the protocol's Inception weights.

    Those are the given file, torch hub's cached one, or a download into that cache.

    Raises:
        UserError: the file is missing or could not be fetched, or both are given.
    """
    if feature_extractor and inception_weights:
        raise UserError("feature_extractor takes the place of Inception: leave out inception_weights")
    if feature_extractor:
        if not Path(feature_extractor).is_file():
            raise UserError(f"{feature_extractor}: no such file; feature_extractor takes a TorchScript module")
        return Path(feature_extractor)
    url = INCEPTION_URLS[protocol]
    if inception_weights:
        if not Path(inception_weights).is_file():
            raise UserError(f"{inception_weights}: no such file; inception_weights takes the file {url}")
        return Path(inception_weights)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = cached.stem.rpartition("-")[2]
        try:
            torch.hub.download_url_to_file(url, str(cached), hash_prefix)
        except Exception as error:  # URLError, HTTPError, a wrong hash, ssl
            raise UserError(
                f"the {INCEPTION_NAMES[protocol]} weights could not be fetched ({reason_of(error)}); get {url} on a "
                "machine with network and give that file as inception_weights"
            ) from None
    return cached


def describe_extractor(protocol: str, file: Path, *, is_inception: bool) -> str:
    """By what saved features remember their extractor: its kind and the fingerprint of its file."""
    return f"{INCEPTION_NAMES[protocol] if is_inception else TORCHSCRIPT} {fingerprint(file)[:16]}"


def load_inception(protocol: str, weights: Path, device: torch.device) -> Extractor:
    """The protocol's Inception v3 without its last layer: 2,048 features.

    Raises:
        UserError: the file holds other weights, or none.
    """
    network = torchvision_inception(weights) if protocol == "released" else torchmetrics_inception(weights)
    network.to(device)

    def normalised(pictures: torch.Tensor) -> torch.Tensor:
        return network(TF.normalize(pictures / 255, IMAGENET_MEAN, IMAGENET_STD))

    return normalised if protocol == "released" else network


def torchvision_inception(weights: Path) -> torch.nn.Module:
    """Protocol released: torchvision's network, for ImageNet-normalised pictures."""
    from torchvision.models import inception_v3

    # transform_input is what torchvision sets together with its own weights.
    network = inception_v3(weights=None, transform_input=True, init_weights=False)
    try:
        network.load_state_dict(load_weights(weights, "released"))
    except RuntimeError:
        raise wrong_weights(weights, "released") from None
    network.fc = torch.nn.Identity()
    return network.eval()


def torchmetrics_inception(weights: Path) -> torch.nn.Module:
    """Protocol standard: the network of torchmetrics' FID and KID, which takes uint8 pictures and resizes them."""
    from torchmetrics.image.fid import NoTrainInceptionV3

    load_weights(weights, "standard")  # torch-fidelity opens any pickle; this one is known to hold tensors only
    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights))
    except RuntimeError:
        raise wrong_weights(weights, "standard") from None


def load_weights(path: Path, protocol: str) -> dict[str, torch.Tensor]:
    """A state dict from a file that may hold nothing but tensors."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # half a dozen kinds for files that are not a checkpoint
        weights = None
    if not isinstance(weights, dict):
        raise wrong_weights(path, protocol)
    return weights


def wrong_weights(path: Path, protocol: str) -> UserError:
    """The error for a file that does not hold the protocol's Inception weights."""
    return UserError(
        f"{path}: not a file of the {INCEPTION_NAMES[protocol]} weights; "
        f"get {INCEPTION_URLS[protocol]} for protocol {protocol}"
    )


def load_torchscript(path: Path, device: torch.device, extra_files: dict[str, str] | None = None) -> Extractor:
    """An extractor of the user's own.

    Args:
        extra_files: texts that may lie in the file, by name; they take the place of the values.

    Raises:
        UserError: not a TorchScript module, or one that works on files; and, when it is called, one that fails or
            whose result is not (N, D).
    """
    try:
        if has_file_operations(path):  # looked at before, because parts of a module run when it is loaded
            raise UserError(f"{path}: this module reads or writes files by itself; an extractor may only compute")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # deprecated, but it opens without its class
            module = torch.jit.load(str(path), map_location=device, _extra_files=extra_files or {}).eval()
    except UserError:
        raise
    except Exception:  # RuntimeError, ValueError, UnpicklingError, ...
        raise UserError(f"{path}: not a TorchScript module; torch.jit.script(module).save(FILE) writes one") from None

    def extractor(pictures: torch.Tensor) -> torch.Tensor:
        shape = tuple(pictures.shape)
        try:
            features = module(pictures)
        except Exception as error:  # what a module raises by itself is not a RuntimeError
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"{path}: the extractor failed on uint8 pictures of shape {shape}: {reason}") from None
        found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(pictures):
            raise UserError(f"{path}: the extractor gave {found} for uint8 pictures of shape {shape}, not (N, D)")
        if not features.shape[1]:
            raise UserError(f"{path}: the extractor gave {found} for {len(pictures)} pictures: no features at all")
        return features

    return extractor


def has_file_operations(path: Path) -> bool:
    """Whether the code in a TorchScript file reads or writes files; it is kept there as text."""
    with zipfile.ZipFile(path) as archive:
        code = [archive.read(name) for name in archive.namelist() if name.endswith(".py")]
    return any(FILE_OPERATIONS.search(text) for text in code)
