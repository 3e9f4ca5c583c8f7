"""The equations of the papers' metrics, on features (N, D) of N pictures and on scores of hands."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from core.runs.errors import UserError
from core.runs.processes import progress

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # rows of each side; as many as the smaller side has, if that is fewer


class Gaussian(NamedTuple):
    """Mean and covariance of features; the covariance as a factor, because FID needs no larger matrix."""

    mean: np.ndarray  # μ (D,)
    factor: np.ndarray  # F (rows, D) with Σ = FᵀF


def gaussian(features: np.ndarray) -> Gaussian:
    """Mean μ and sample covariance Σ = Σᵢ (xᵢ − μ)(xᵢ − μ)ᵀ / (N − 1) of (N, D) features, in float64."""
    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    return Gaussian(mean, (features - mean) / np.sqrt(len(features) - 1))


def frechet_distance(real: Gaussian, fake: Gaussian) -> float:
    """FID (Heusel et al. 2017, equation 6): |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

    μ and Σ are mean and covariance of the features of real (1) and generated (2) pictures.

    `trace_of_root` takes the place of the released code's general matrix root.
    """
    traces = (real.factor**2).sum() + (fake.factor**2).sum()  # tr Σ₁ + tr Σ₂
    distance = ((real.mean - fake.mean) ** 2).sum() + traces - 2 * trace_of_root(real.factor, fake.factor)
    return max(0.0, float(distance))


def trace_of_root(one: np.ndarray, other: np.ndarray) -> float:
    """tr (Σ₁Σ₂)^½ of two covariances by their factors (M, D) and (N, D).

    A general matrix root of Σ₁Σ₂ is slow, and turns complex or NaN where the covariances are singular (fewer pictures
    than features). With Σ₁ = FᵀF the trace of the root is the sum of the roots of the eigenvalues of F Σ₂ Fᵀ, a
    symmetric matrix no larger than the smaller number of pictures, or than D.
    """
    few, many = sorted((one, other), key=len)
    if len(few) > few.shape[1]:
        few = square_factor(few)
    # The brackets decide the cost: never through a matrix larger than necessary.
    product = few @ many.T @ (many @ few.T) if len(many) < many.shape[1] else few @ (many.T @ many) @ few.T
    return float(np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum())


def square_factor(factor: np.ndarray) -> np.ndarray:
    """A (D, D) factor of the same covariance as a factor of more rows."""
    eigenvalues, vectors = np.linalg.eigh(factor.T @ factor)
    return np.sqrt(eigenvalues.clip(min=0))[:, None] * vectors.T


def polynomial_mmd(x: np.ndarray, y: np.ndarray, *, unbiased: bool) -> float:
    """Squared maximum mean discrepancy of features x (M, D) and y (N, D) (Bińkowski et al. 2018, equation 4):

        mean k(x, x') + mean k(y, y') − 2 mean k(x, y),   k(x, y) = (x·y / D + 1)³

    Args:
        unbiased: leave out each row with itself in the first two means; the biased estimate averages over all pairs.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    k_xx, k_yy, k_xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    if unbiased:
        within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (k_xx, k_yy))
    else:
        within = k_xx.mean() + k_yy.mean()
    return float(within - 2 * k_xy.mean())


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = (x·y / D + 1)³ for every pair of rows of x (M, D) and y (N, D): (M, N)."""
    kernel = x @ y.T / x.shape[1] + 1
    return kernel * kernel * kernel  # NumPy's ** 3 takes many times as long


def kernel_inception_distance(
    real: np.ndarray, fake: np.ndarray, *, unbiased: bool, seed: int = 0
) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018): mean and standard deviation of `polynomial_mmd` over 100 random subsets.

    A subset is 1,000 rows of each side, or as many as the smaller side has. The subsets are those of torchmetrics'
    KernelInceptionDistance after `torch.manual_seed(seed)`.
    """
    import torch  # here, because the other equations and the scripts' --help do without

    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    if len(real) == len(fake) == size:  # every subset is the whole
        return polynomial_mmd(real, fake, unbiased=unbiased), 0.0
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in progress(range(KID_SUBSETS), desc="KID", unit="subset"):
        x = real[torch.randperm(len(real), generator=generator)[:size].numpy()]
        y = fake[torch.randperm(len(fake), generator=generator)[:size].numpy()]
        values.append(polynomial_mmd(x, y, unbiased=unbiased))
    return float(np.mean(values)), float(np.std(values))


def hand_confidence(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """HAND-CONF (Hand1000, "Evaluation metrics") and its standard error: c = Σᵢ Sᵢ / Σᵢ nᵢ, the mean over all hands.

    nᵢ is the number of hands in picture i, Sᵢ the sum of their handedness scores. The hands of one picture are not
    independent of each other, so the error is that of a ratio of sums over n pictures (Cochran 1977, section 2.11):
    √(n / (n − 1) Σᵢ (Sᵢ − c nᵢ)²) / Σᵢ nᵢ. With one hand in each picture it is the usual standard deviation / √n.

    Args:
        scores: for each picture the scores (0.5 to 1) of its hands; pictures without a hand do not count.

    Returns:
        c and its standard error, which is NaN with fewer than two pictures that have a hand.

    Raises:
        UserError: there is no hand at all.
    """
    counts, sums = hands_and_sums(scores)
    n = len(counts)
    if not n:
        raise UserError("no hand was found in any picture, so there is no hand confidence")
    mean = sums.sum() / counts.sum()
    if n < 2:
        return float(mean), float("nan")
    error = np.sqrt(n / (n - 1) * ((sums - mean * counts) ** 2).sum()) / counts.sum()
    return float(mean), float(error)


def hands_and_sums(scores: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """nᵢ and Sᵢ of every picture i that has a hand: its number of hands, and the sum of their scores."""
    with_hand = [picture for picture in scores if len(picture)]
    return np.array([len(picture) for picture in with_hand]), np.array([sum(picture) for picture in with_hand])
