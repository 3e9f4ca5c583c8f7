"""FID and KID of two folders of pictures, two `.npz` files of saved features, or two (N, D) arrays."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from core.metrics.equations import frechet_distance, gaussian, kernel_inception_distance
from core.metrics.pictures import check_protocol
from core.metrics.saved_features import check_features

Source: TypeAlias = str | Path | np.ndarray


def fid(real: Source, fake: Source, **options: Any) -> float:
    """Fréchet Inception distance (Heusel et al. 2017), which is the same in both protocols but for the features.

    Args:
        real, fake: folders of pictures, `.npz` files that `save_features` wrote, or (N, D) arrays, N at least 2.
        options: for folders and files, those of `core.metrics.features.features_of_both`: `protocol`, `hands`,
            `hand_crop`, `feature_extractor`, `inception_weights`, `batch_size`, `num_workers`.

    Returns:
        A number from 0; the smaller, the closer the two distributions.

    Raises:
        UserError: a folder without pictures or without hands, features that do not fit each other, NaN in features.
        TypeError: an array together with a folder, or with options.
    """
    real, fake = feature_arrays(real, fake, **options)
    return frechet_distance(gaussian(real), gaussian(fake))


def kid(
    real: Source, fake: Source, *, protocol: str = "released", seed: int = 0, **options: Any
) -> tuple[float, float]:
    """Kernel Inception distance (Bińkowski et al. 2018): mean and standard deviation over 100 random subsets.

    Args:
        real, fake, options: as for `fid`.
        protocol: "released" takes the biased estimate as the released code does, "standard" the unbiased one, which
            can be negative.
        seed: of the random subsets.

    Raises:
        UserError, TypeError: as `fid`.
    """
    real, fake = feature_arrays(real, fake, protocol=protocol, **options)
    return kernel_inception_distance(real, fake, unbiased=protocol == "standard", seed=seed)


def feature_arrays(
    real: Source, fake: Source, *, protocol: str = "released", **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The features of both sides, (M, D) and (N, D), checked; see `fid`."""
    check_protocol(protocol)
    if isinstance(real, str | Path) and isinstance(fake, str | Path):
        from core.metrics.features import features_of_both

        sides = features_of_both(real, fake, protocol=protocol, **options)
        return sides[0].features, sides[1].features
    if isinstance(real, str | Path) or isinstance(fake, str | Path) or options:
        raise TypeError("give two arrays and no options, or two folders or .npz files")
    real, fake = np.asarray(real), np.asarray(fake)
    check_features(real, fake)
    return real, fake
