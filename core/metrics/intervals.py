"""95 % intervals of the metrics: of FID and KID, of hand confidence, of shares."""

from collections.abc import Callable, Sequence

import numpy as np

from core.metrics.equations import (
    KID_SUBSET_SIZE,
    frechet_distance,
    gaussian,
    hands_and_sums,
    polynomial_mmd,
)
from core.runs.errors import UserError
from core.runs.processes import progress

Interval = tuple[float, float]  # lower and upper end
QUANTILES = (0.025, 0.975)
SUBSET_SHARE = 0.9  # of the rows of each side
FEWEST_PICTURES = 10  # a side; subsets of fewer say nothing


def fid_interval(real: np.ndarray, fake: np.ndarray, estimate: float, *, resamples: int, seed: int = 0) -> Interval:
    """95 % interval around an FID of two (N, D) arrays, from random subsets of 90 % of each side.

    Raises:
        UserError: fewer than 10 pictures on a side.
    """

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return frechet_distance(gaussian(x), gaussian(y))

    low, high = subset_interval(distance, real, fake, estimate, share=SUBSET_SHARE, resamples=resamples, seed=seed)
    return max(0.0, low), high


def kid_interval(
    real: np.ndarray, fake: np.ndarray, estimate: float, *, unbiased: bool, resamples: int, seed: int = 0
) -> Interval:
    """95 % interval around a KID, from random subsets of 90 % of each side, or of 1,000 rows of the larger one.

    Raises:
        UserError: fewer than 10 pictures on a side.
    """

    def discrepancy(x: np.ndarray, y: np.ndarray) -> float:
        return polynomial_mmd(x, y, unbiased=unbiased)

    share = min(SUBSET_SHARE, KID_SUBSET_SIZE / max(len(real), len(fake)))
    return subset_interval(discrepancy, real, fake, estimate, share=share, resamples=resamples, seed=seed)


def subset_interval(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    real: np.ndarray,
    fake: np.ndarray,
    estimate: float,
    *,
    share: float,
    resamples: int,
    seed: int,
) -> Interval:
    """Subsampling (Politis and Romano 1994): how far the statistic of other samples of the same size would lie.

    Subsets hold `share` (0 to 1) of the rows, each once. The ordinary bootstrap draws with replacement; FID and KID
    would take the repeated rows for a narrower distribution. The subsets' scatter around their own mean becomes that
    of the whole by the factor √(share / (1 − share)). Between nearly equal distributions the interval is up to twice
    too wide.

    Raises:
        UserError: fewer than 10 rows on a side.
    """
    fewest = min(len(real), len(fake))
    if fewest < FEWEST_PICTURES:
        raise UserError(f"an interval needs at least {FEWEST_PICTURES} pictures a side, not {fewest}")
    rng = np.random.default_rng(seed)
    values = []
    for _ in progress(range(resamples), desc="Interval", unit="resample"):
        x, y = (side[rng.permutation(len(side))[: int(share * len(side))]] for side in (real, fake))
        values.append(statistic(x, y))
    factor = np.sqrt(share / (1 - share))
    low, high = estimate + factor * (np.quantile(values, QUANTILES) - np.mean(values))
    return float(low), float(high)


def hand_confidence_interval(scores: Sequence[Sequence[float]], *, resamples: int, seed: int = 0) -> Interval:
    """95 % bootstrap interval of the hand confidence: the pictures that have a hand are drawn with replacement.

    Args:
        scores: for each picture the scores of its hands; at least one picture has one.
    """
    rng = np.random.default_rng(seed)
    counts, sums = hands_and_sums(scores)
    values = []
    for _ in range(resamples):
        times_drawn = np.bincount(rng.integers(len(counts), size=len(counts)), minlength=len(counts))
        values.append(times_drawn @ sums / (times_drawn @ counts))
    low, high = np.quantile(values, QUANTILES)
    return float(low), float(high)


def bootstrap_interval(values: np.ndarray, groups: Sequence[int], *, resamples: int, seed: int) -> Interval:
    """The 95 % bootstrap interval of the mean of `values`, NaN left out; groups are drawn anew, each as a whole.

    Values of one group depend on each other, such as those of several pictures of one label.

    Args:
        values: (N,), of which some may be NaN.
        groups: which group each value belongs to.

    Returns:
        The lower and the upper end; NaN where there is nothing but NaN.
    """
    by_group = np.argsort(groups, kind="stable")
    sizes = np.unique(np.asarray(groups)[by_group], return_counts=True)[1]
    starts, rng = np.cumsum(sizes) - sizes, np.random.default_rng(seed)
    means = np.full(resamples, np.nan)
    for number in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        counts = sizes[drawn]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each group
        sample = values[by_group[np.repeat(starts[drawn], counts) + within]]
        if not np.isnan(sample).all():
            means[number] = np.nanmean(sample)
    if np.isnan(means).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(means, QUANTILES)
    return float(low), float(high)


def share_interval(hits: Sequence[bool]) -> Interval:
    """95 % interval of the share of pictures that have something: Wilson's, which is right near 0 and 1 too."""
    from scipy.stats import binomtest  # here, because it takes half a second

    interval = binomtest(sum(map(bool, hits)), len(hits)).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
