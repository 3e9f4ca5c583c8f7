"""Errors of hands: every metric against a slow version that follows its definition in words."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from attentionhand.reconstruction import metrics


@pytest.fixture
def hands() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 40, (5, 21, 3))
    return true + rng.normal(0, 15, true.shape) + rng.normal(0, 300, (5, 1, 3)), true


def distance(a, b) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b)) ** 0.5


def slow_mpjpe(predicted, true) -> float:
    errors = []
    for joint in range(21):
        ours = [predicted[joint][axis] - predicted[0][axis] for axis in range(3)]
        theirs = [true[joint][axis] - true[0][axis] for axis in range(3)]
        if not any(np.isnan(theirs)):
            errors.append(distance(ours, theirs))
    return sum(errors) / len(errors)


def test_mpjpe(hands):
    predicted, true = hands
    assert metrics.mpjpe(predicted, true) == pytest.approx([slow_mpjpe(*pair) for pair in zip(predicted, true)])
    assert metrics.mpjpe(true + 7, true) == pytest.approx(
        np.zeros(5)
    )  # wrist on wrist: where the hand is does not count


def test_unknown_joints_are_left_out(hands):
    predicted, true = hands
    true[0, [3, 9]] = np.nan
    true[1] = np.nan
    errors = metrics.mpjpe(predicted, true)
    assert errors[0] == pytest.approx(slow_mpjpe(predicted[0], true[0]))
    assert np.isnan(errors[1]) and not np.isnan(errors[2:]).any()
    assert np.isnan(metrics.pa_mpjpe(predicted, true)[1])
    assert np.isnan(metrics.auc_of_pck(metrics.joint_errors(predicted, true), 50)[1])


def test_pa_mpjpe_is_the_best_that_a_search_finds(hands):
    predicted, true = hands
    for ours, theirs, error in zip(predicted, true, metrics.pa_mpjpe(predicted, true)):

        def moved(x, ours=ours):
            return np.exp(x[3]) * Rotation.from_rotvec(x[:3]).apply(ours - ours.mean(axis=0)) + x[4:]

        def squares(x, theirs=theirs):
            return ((moved(x) - theirs) ** 2).sum()

        start = np.concatenate([np.zeros(4), theirs.mean(axis=0)])
        found = minimize(squares, start, method="BFGS", options={"gtol": 1e-6})
        assert error == pytest.approx(np.linalg.norm(moved(found.x) - theirs, axis=1).mean(), rel=1e-3)


def test_pa_mpjpe_forgives_a_turn_but_no_mirror(hands):
    true = hands[1]
    turned = 2.5 * Rotation.from_euler("xyz", [20, 50, -70], degrees=True).apply(true.reshape(-1, 3)) + 30
    assert metrics.pa_mpjpe(turned.reshape(true.shape), true) == pytest.approx(np.zeros(5), abs=1e-9)
    assert metrics.pa_mpjpe(true * [-1, 1, 1], true).min() > 1


def test_auc_of_pck(hands):
    errors = metrics.joint_errors(*hands)
    for row, area in zip(errors, metrics.auc_of_pck(errors, 50)):
        thresholds = [50 * step / 99 for step in range(100)]
        pck = [sum(error <= threshold for error in row) / 21 for threshold in thresholds]
        trapezoids = [(50 / 99) * (a + b) / 2 for a, b in zip(pck, pck[1:])]
        assert area == pytest.approx(sum(trapezoids) / 50)
    assert metrics.auc_of_pck(np.zeros((1, 21)), 50) == pytest.approx(1)
    assert metrics.auc_of_pck(np.full((1, 21), 51.0), 50) == pytest.approx(0)


def test_mrrpe():
    rng = np.random.default_rng(1)
    predicted, true = rng.normal(0, 100, (2, 6, 3))
    assert metrics.mrrpe(predicted, true) == pytest.approx([distance(*pair) for pair in zip(predicted, true)])


def test_mpvpe_and_rrve():
    rng = np.random.default_rng(2)
    predicted, true = rng.normal(0, 50, (2, 4, 2, 30, 3))
    our_wrist, their_wrist = rng.normal(0, 50, (2, 4, 2, 3))
    for row in range(4):
        of_both, relative = [], []
        for hand in range(2):
            errors = []
            for vertex in range(30):
                ours, theirs = predicted[row, hand, vertex], true[row, hand, vertex]
                errors.append(distance(ours - our_wrist[row, hand], theirs - their_wrist[row, hand]))
                relative.append(distance(ours - our_wrist[row, 0], theirs - their_wrist[row, 0]))
            of_both.append(sum(errors) / 30)
        for hand in range(2):
            found = metrics.mpvpe(predicted[:, hand], true[:, hand], our_wrist[:, hand], their_wrist[:, hand])
            assert found[row] == pytest.approx(of_both[hand])
        assert metrics.rrve(predicted, true, our_wrist, their_wrist)[row] == pytest.approx(sum(relative) / 60)


def test_rrve_as_interwild_takes_it():
    """InterWild moves each hand to its own wrist, then adds the left wrist's place seen from the right one."""
    rng = np.random.default_rng(3)
    predicted, true = rng.normal(0, 50, (2, 3, 2, 30, 3))
    our_wrist, their_wrist = rng.normal(0, 50, (2, 3, 2, 3))
    parts = []
    for vertices, wrist in ((predicted, our_wrist), (true, their_wrist)):
        own = vertices - wrist[:, :, None]
        own[:, 1] += (wrist[:, 1] - wrist[:, 0])[:, None]
        parts.append(own.reshape(3, -1, 3))
    expected = np.sqrt(((parts[0] - parts[1]) ** 2).sum(-1)).mean(axis=1)
    assert metrics.rrve(predicted, true, our_wrist, their_wrist) == pytest.approx(expected)
    true[0, 1] = np.nan
    assert np.isnan(metrics.rrve(predicted, true, our_wrist, their_wrist)).tolist() == [True, False, False]
