"""The equations of FID, KID and hand confidence against slow, independent versions."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import two_samples
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from core.metrics import fid, kid
from core.metrics.equations import hand_confidence
from core.runs.errors import UserError


def released_fid(real: np.ndarray, fake: np.ndarray) -> float:
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    difference = real.mean(axis=0) - fake.mean(axis=0)
    return difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root).real


def kid_of_pairs(real: np.ndarray, fake: np.ndarray, *, biased: bool) -> float:
    def mean_kernel(xs, ys, same):
        values = [
            (sum(a * b for a, b in zip(x, y)) / len(x) + 1) ** 3
            for i, x in enumerate(xs)
            for j, y in enumerate(ys)
            if biased or not same or i != j
        ]
        return sum(values) / len(values)

    return mean_kernel(real, real, True) + mean_kernel(fake, fake, True) - 2 * mean_kernel(real, fake, False)


@pytest.mark.parametrize("rows", [(300, 300), (300, 2000), (2000, 300)])
def test_fid_is_the_released_formula(rows):
    real, fake = two_samples(*rows, 64)
    assert fid(real, fake) == pytest.approx(released_fid(real, fake), rel=1e-6)
    assert fid(real.astype(np.float32), fake) == pytest.approx(fid(real, fake), rel=1e-6)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rows", [(20, 30), (30, 500), (500, 30), (2, 2)])
def test_fid_of_fewer_pictures_than_features_is_finite_and_right(rows):
    real, fake = two_samples(*rows, 64)
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    # The root's trace from the eigenvalues of the product itself, which is not symmetric.
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + sum(map(np.trace, covariances))
    assert fid(real, fake) == pytest.approx(expected - 2 * np.sqrt(eigenvalues).sum(), rel=1e-6)


def test_kid_is_a_mean_over_all_pairs():
    real, fake = two_samples(12, 12, 5)
    assert kid(real, fake) == (pytest.approx(kid_of_pairs(real, fake, biased=True), rel=1e-9), 0)
    assert kid(real, fake, protocol="standard")[0] == pytest.approx(kid_of_pairs(real, fake, biased=False), rel=1e-9)


def test_kid_subsets_are_as_large_as_the_smaller_side():
    real, fake = two_samples(25, 12, 5)
    generator = torch.Generator().manual_seed(3)
    values = []
    for _ in range(100):
        x = real[torch.randperm(25, generator=generator)[:12].numpy()]
        y = fake[torch.randperm(12, generator=generator).numpy()]
        values.append(kid_of_pairs(x, y, biased=True))
    assert kid(real, fake, seed=3) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
    assert kid(real, fake, seed=4) != kid(real, fake, seed=3)


def test_standard_is_torchmetrics_on_the_same_features():
    class Pass(torch.nn.Module):
        num_features = 16

        def forward(self, x):
            return x[:, :, 0, 0]

    real, fake = (side.astype(np.float32) for side in two_samples(1500, 1200, 16))
    theirs = FrechetInceptionDistance(Pass()), KernelInceptionDistance(Pass())
    for metric in theirs:
        metric.update(torch.from_numpy(real)[:, :, None, None], real=True)
        metric.update(torch.from_numpy(fake)[:, :, None, None], real=False)
    assert fid(real, fake, protocol="standard") == pytest.approx(float(theirs[0].compute()), rel=1e-4)
    torch.manual_seed(5)
    mean, std = theirs[1].compute()
    ours = kid(real, fake, protocol="standard", seed=5)
    assert ours == (pytest.approx(float(mean), rel=1e-4), pytest.approx(float(std), rel=1e-2))


def test_hand_confidence_and_its_error():
    scores = [[0.9], [], [0.8], [0.99]]
    mean, error = hand_confidence(scores)
    assert mean == pytest.approx(np.mean([0.9, 0.8, 0.99]))
    assert error == pytest.approx(np.std([0.9, 0.8, 0.99], ddof=1) / np.sqrt(3))
    # Two hands with the same score in each picture say no more than one.
    assert hand_confidence([2 * picture for picture in scores])[1] == pytest.approx(error)
    assert math.isnan(hand_confidence([[0.9]])[1])
    with pytest.raises(UserError, match="no hand was found in any picture"):
        hand_confidence([[], []])


def test_bad_arrays():
    with pytest.raises(UserError, match="real has 3 features a picture, fake has 4"):
        fid(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(UserError, match=r"fake: features are an \(N, D\) array of numbers, this is float64 \(5, 0\)"):
        kid(np.zeros((5, 3)), np.zeros((5, 0)))
    with pytest.raises(UserError, match="real: 1 picture; a distribution needs at least 2"):
        fid(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(UserError, match="no protocol 'standrad'; there are released and standard"):
        kid(np.zeros((5, 3)), np.zeros((5, 3)), protocol="standrad")
    with pytest.raises(TypeError, match="no options"):
        fid(np.zeros((5, 3)), np.zeros((5, 3)), hands=True)
    with pytest.raises(TypeError, match="two folders"):
        fid("folder", np.zeros((5, 3)))


@pytest.mark.parametrize("size", [1e31, 1e60, -1e200])
def test_features_too_large_to_compute_with(size):
    real, fake = two_samples(20, 20, 4)
    for metric in (fid, kid):
        with pytest.raises(UserError, match="fake: features of up to .* are too large to compute with"):
            metric(real, fake * size)
    assert np.isfinite(fid(real * 1e29, fake * 1e29)) and np.isfinite(kid(real * 1e29, fake * 1e29)[0])
