"""Intervals of metrics."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE_EDGES = (0.025, 0.975)  # of a 95 % interval


def bootstrap_interval(values: np.ndarray, groups: Sequence[int], *, resamples: int, seed: int) -> tuple[float, float]:
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
    low, high = np.nanquantile(means, CONFIDENCE_EDGES)
    return float(low), float(high)
