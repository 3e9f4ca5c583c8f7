"""The 95 % intervals are as wide as the scatter of other samples."""

import numpy as np
import pytest

from core.metrics import fid, intervals, kid
from core.metrics.equations import hand_confidence, polynomial_mmd
from core.metrics.intervals import fid_interval, hand_confidence_interval, kid_interval, share_interval


@pytest.mark.parametrize(
    "size, rows, shift, widest",
    [(4, (120, 150), 0.5, 1.3), (4, (300, 60), 0.5, 1.3), (4, (120, 120), 0.0, 2), (60, (40, 40), 0.05, 2.4)],
)
@pytest.mark.parametrize("name", ["fid", "kid"])
def test_intervals_hold_what_other_samples_give(name, size, rows, shift, widest):
    """As wide as the scatter of other samples where the sides differ, somewhat wider where they hardly do."""

    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(rows[0], size)), 1.1 * rng.normal(size=(rows[1], size)) + shift
        if name == "fid":
            value = fid(real, fake)
            return value, fid_interval(real, fake, value, resamples=100)
        value = kid(real, fake, protocol="standard")[0]
        return value, kid_interval(real, fake, value, unbiased=True, resamples=100)

    check_intervals([estimate_and_interval(seed) for seed in range(40)], widest)


def test_kid_interval_from_small_subsets(monkeypatch):
    """Of many pictures a subset is a small share; the interval is that of all of them."""
    monkeypatch.setattr(intervals, "KID_SUBSET_SIZE", 60)

    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(300, 4)), 1.2 * rng.normal(size=(300, 4)) + 0.5
        value = polynomial_mmd(real, fake, unbiased=True)
        return value, kid_interval(real, fake, value, unbiased=True, resamples=200)

    check_intervals([estimate_and_interval(seed) for seed in range(40)], widest=1.35)


def test_hand_confidence_interval():
    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        scores = [rng.normal(0.8, 0.05) + rng.normal(0, 0.02, rng.integers(0, 3)) for _ in range(80)]
        return hand_confidence(scores)[0], hand_confidence_interval(scores, resamples=150)

    check_intervals([estimate_and_interval(seed) for seed in range(60)], widest=1.25)


def check_intervals(results, widest: float) -> None:
    """Most intervals hold the mean over samples, and they are about as wide as the samples scatter."""
    values = np.array([value for value, _ in results])
    lows, highs = np.array([interval for _, interval in results]).T
    assert ((lows <= values.mean()) & (values.mean() <= highs)).mean() >= 0.85
    assert ((lows <= values) & (values <= highs)).all()
    assert 0.8 < (highs - lows).mean() / (2 * 1.96 * values.std()) < widest


def test_share_interval_is_wilsons():
    """Against the closed form (Wilson 1927)."""
    z, n = 1.959963984540054, 40
    for hits in (0, 3, 20, 40):
        p = hits / n
        centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        expected = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
        assert share_interval([True] * hits + [False] * (n - hits)) == pytest.approx(expected, abs=1e-9)
