"""The papers' metrics: FID, KID (FID-H, KID-H on hand crops) and hand confidence, with 95 % intervals.

On two folders, two `.npz` files of saved features, or two (N, D) arrays:

    from hand1000.metrics import fid, kid
    fid("photos", "generated")
    kid("photos", "generated", hands=True, protocol="standard", num_workers=8)
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from core.runs.errors import UserError
from core.runs.processes import progress

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
Source = str | Path | np.ndarray
PROTOCOLS = ("released", "standard")
Gaussian = tuple[np.ndarray, np.ndarray]  # mean (D,), and a factor F (rows, D) of the covariance: F'F


def fid(real: Source, fake: Source, **options) -> float:
    """Fréchet Inception distance (Heusel et al. 2017), as both protocols compute it.

    Args:
        real, fake: folders of pictures, `.npz` files of features, or (N, D) arrays, N at least 2.
        options: for folders, those of `hand1000.features.features_of_both` (`protocol`, `hands`, ...).

    Raises:
        UserError: a folder without pictures or without hands, features that do not fit each other, NaN.
    """
    real, fake = _two_arrays(real, fake, **options)
    return frechet_distance(gaussian(real), gaussian(fake))


def kid(real: Source, fake: Source, *, protocol: str = "released", seed: int = 0, **options) -> tuple[float, float]:
    """Kernel Inception distance (Bińkowski et al. 2018): mean and standard deviation over 100 random subsets.

    A subset is 1,000 rows of each side, or as many as the smaller side has. `protocol` "released" takes the biased
    estimate of the discrepancy, "standard" the unbiased one. The subsets are those of torchmetrics'
    KernelInceptionDistance after `torch.manual_seed(seed)`.

    Args and Raises: as `fid`.
    """
    import torch

    real, fake = _two_arrays(real, fake, protocol=protocol, **options)
    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    if len(real) == len(fake) == size:  # every subset is the whole
        return polynomial_mmd(real, fake, unbiased=protocol == "standard"), 0.0
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in progress(range(KID_SUBSETS), desc="KID", unit="subset"):
        x = real[torch.randperm(len(real), generator=generator)[:size].numpy()]
        y = fake[torch.randperm(len(fake), generator=generator)[:size].numpy()]
        values.append(polynomial_mmd(x, y, unbiased=protocol == "standard"))
    return float(np.mean(values)), float(np.std(values))


def hand_confidence(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """HAND-CONF, the mean handedness score over all hands, and its standard error.

    The hands of one picture are no independent draws, so the error is that of a ratio of sums over pictures (with one
    hand in each it is the usual standard deviation / √n). NaN with fewer than two pictures that have a hand.

    Args:
        scores: for each picture the scores (0.5 to 1) of its hands; pictures without a hand do not count.

    Raises:
        UserError: no hand at all.
    """
    hands = np.array([len(picture) for picture in scores if len(picture)])
    sums = np.array([sum(picture) for picture in scores if len(picture)])
    if not len(hands):
        raise UserError("no hand found in any picture: there is no hand confidence")
    mean = sums.sum() / hands.sum()
    if len(hands) < 2:
        return float(mean), float("nan")
    deviations = sums - mean * hands
    return float(mean), float(np.sqrt(len(hands) / (len(hands) - 1) * (deviations**2).sum()) / hands.sum())


# The equations


def gaussian(features: np.ndarray) -> Gaussian:
    """Mean and sample covariance (as a factor) of (N, D) features."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    return mean, (features - mean) / np.sqrt(len(features) - 1)


def frechet_distance(real: Gaussian, fake: Gaussian) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), in float64.

    The released code takes a general matrix root of Σ₁Σ₂, which is slow, and turns complex or NaN where the
    covariances are singular (fewer pictures than features). With Σ₁ = F'F the trace of that root is the sum of the
    roots of the eigenvalues of F Σ₂ F', which is symmetric and no larger than the number of pictures.
    """
    (mean_1, factor_1), (mean_2, factor_2) = real, fake
    traces = (factor_1**2).sum() + (factor_2**2).sum()
    few, many = sorted((factor_1, factor_2), key=len)
    if len(few) > few.shape[1]:
        few = _square_factor(few)
    # The brackets decide the cost: never through a matrix larger than it has to be.
    product = few @ many.T @ (many @ few.T) if len(many) < many.shape[1] else few @ (many.T @ many) @ few.T
    root_trace = np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum()
    return max(0.0, float(((mean_1 - mean_2) ** 2).sum() + traces - 2 * root_trace))


def polynomial_mmd(x: np.ndarray, y: np.ndarray, *, unbiased: bool) -> float:
    """Squared maximum mean discrepancy of (M, D) and (N, D) features under the kernel (x·y / D + 1)³.

    The biased estimate averages the kernel over all pairs, the unbiased one leaves out each row with itself.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    k_xx, k_yy, k_xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    if unbiased:
        within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (k_xx, k_yy))
    else:
        within = k_xx.mean() + k_yy.mean()
    return float(within - 2 * k_xy.mean())


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x·y / D + 1)³ for every pair of rows."""
    return (x @ y.T / x.shape[1] + 1) ** 3


# Intervals


def fid_interval(real: np.ndarray, fake: np.ndarray, *, resamples: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the FID of two (N, D) arrays, from random subsets of 90 % of each side.

    Raises:
        UserError: fewer than 10 pictures on a side.
    """
    low, high = _subset_interval(
        lambda *sides: frechet_distance(*map(gaussian, sides)), fid(real, fake), real, fake, 0.9, resamples, seed
    )
    return max(0.0, low), high


def kid_interval(
    real: np.ndarray, fake: np.ndarray, estimate: float, *, protocol: str, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % interval around a KID, from random subsets of 90 % of each side, or of 1,000 rows of the larger one.

    Raises:
        UserError: fewer than 10 pictures on a side.
    """
    share = min(0.9, KID_SUBSET_SIZE / max(len(real), len(fake)))
    statistic = functools.partial(polynomial_mmd, unbiased=protocol == "standard")
    return _subset_interval(statistic, estimate, real, fake, share, resamples, seed)


def _subset_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    estimate: float,
    real: np.ndarray,
    fake: np.ndarray,
    share: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Subsampling (Politis and Romano 1994): how far the statistic of other samples of the same size would lie.

    Subsets hold `share` of the rows, each once. Drawing with replacement as the ordinary bootstrap does would double
    rows, which FID and KID take for a narrower distribution. The subsets' scatter around their own mean becomes the
    whole's by √(share / (1 - share)). Between nearly equal distributions the interval is still up to twice too wide.
    """
    if min(len(real), len(fake)) < 10:
        raise UserError(f"an interval needs at least 10 pictures a side, not {min(len(real), len(fake))}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in progress(range(resamples), desc="Interval", unit="resample"):
        values.append(statistic(*(side[rng.permutation(len(side))[: int(share * len(side))]] for side in (real, fake))))
    scale = np.sqrt(share / (1 - share))
    low, high = estimate + scale * (np.quantile(values, (0.025, 0.975)) - np.mean(values))
    return float(low), float(high)


def hand_confidence_interval(
    scores: Sequence[Sequence[float]], *, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the hand confidence: the pictures that have a hand are drawn anew."""
    rng = np.random.default_rng(seed)
    hands = np.array([len(picture) for picture in scores if len(picture)])
    sums = np.array([sum(picture) for picture in scores if len(picture)])
    draws = (np.bincount(rng.integers(len(hands), size=len(hands)), minlength=len(hands)) for _ in range(resamples))
    low, high = np.quantile([counts @ sums / (counts @ hands) for counts in draws], (0.025, 0.975))
    return float(low), float(high)


def share_interval(hits: Sequence[bool]) -> tuple[float, float]:
    """95 % interval of the share of pictures that have something: Wilson's, which is right near 0 and 1 too."""
    interval = binomtest(sum(map(bool, hits)), len(hits)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _square_factor(factor: np.ndarray) -> np.ndarray:
    """A (D, D) factor of the same covariance as one of more rows."""
    eigenvalues, vectors = np.linalg.eigh(factor.T @ factor)
    return np.sqrt(eigenvalues.clip(min=0))[:, None] * vectors.T


# Input


def check_features(real: np.ndarray, fake: np.ndarray, names: tuple[str, str] = ("real", "fake")) -> None:
    """Raises UserError unless both are finite (N, D) arrays with N at least 2 and the same D."""
    for features, name in zip((real, fake), names):
        if features.ndim != 2 or features.dtype.kind not in "fiu":
            raise UserError(
                f"{name}: features are an (N, D) array of numbers, this is {features.dtype} {features.shape}"
            )
        if len(features) < 2:
            raise UserError(f"{name}: {len(features)} picture; a distribution needs at least 2")
        if not np.isfinite(features).all():
            rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
            raise UserError(f"{name}: NaN or infinity in {len(rows)} rows of features, the first is row {rows[0]}")
    if real.shape[1] != fake.shape[1]:
        raise UserError(
            f"{names[0]} has {real.shape[1]} features a picture, {names[1]} has {fake.shape[1]}; "
            "take the same extractor for both"
        )


def _two_arrays(real: Source, fake: Source, *, protocol: str = "released", **options) -> tuple[np.ndarray, np.ndarray]:
    if protocol not in PROTOCOLS:
        raise UserError(f"no protocol '{protocol}'; there are {' and '.join(PROTOCOLS)}")
    if isinstance(real, str | Path) and isinstance(fake, str | Path):
        from core.metrics.features import features_of_both

        sides = features_of_both(real, fake, protocol=protocol, **options)
        return sides[0].features, sides[1].features
    if isinstance(real, str | Path) or isinstance(fake, str | Path) or options:
        raise TypeError("give two arrays and no options, or two folders or .npz files")
    real, fake = np.asarray(real), np.asarray(fake)
    check_features(real, fake)
    return real, fake
