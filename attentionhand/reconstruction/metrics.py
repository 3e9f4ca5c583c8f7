"""Errors of reconstructed hands, as InterHand2.6M's and InterWild's evaluations define them.

Every function gives one number for each hand or pair of hands, so that means and intervals are taken in one place.
Lengths are in the unit of what they are given: millimetres, or palm lengths (wrist to middle knuckle). Joints and
vertices that are NaN in the label are left out; a hand without any gives NaN.
"""

import warnings

import numpy as np

WRIST = 0  # of the 21 joints in MediaPipe's order
AUC_SHARE = 0.5  # AUC counts errors up to 50 mm, which is half a palm length
AUC_STEPS = 100


def joint_errors(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distances (N, 21) of the joints after both hands (N, 21, 3) are moved to have their wrist at the origin."""
    return np.linalg.norm(_from_wrist(predicted) - _from_wrist(true), axis=-1)


def mpjpe(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean per-joint position error (N,): the mean distance of the 21 joints, wrist on wrist.

    The wrist counts with its error of 0, as in InterHand2.6M's evaluation.

    Args:
        predicted: (N, 21, 3); `true` likewise.
    """
    return _mean(joint_errors(predicted, true))


def pa_mpjpe(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """MPJPE after Procrustes alignment (N,): the best rotation, scale and shift of each predicted hand come first.

    So it measures the pose alone. A mirrored hand is not made right: only true rotations are allowed.

    Args:
        predicted: (N, 21, 3); `true` likewise.
    """
    errors = np.full(len(true), np.nan)
    for number, (ours, theirs) in enumerate(zip(predicted, true, strict=True)):
        known = ~np.isnan(theirs).any(axis=1)
        if known.sum() >= 3:
            aligned = procrustes(ours[known], theirs[known])
            errors[number] = np.linalg.norm(aligned - theirs[known], axis=1).mean()
    return errors


def procrustes(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`points` (J, 3) after the rotation, scale and shift that bring them nearest to `target` (J, 3).

    The solution of min ‖s·R·x + t − y‖² by the singular values of the covariance (Umeyama 1991, equations 40 to 43).
    """
    points_mean, target_mean = points.mean(axis=0), target.mean(axis=0)
    x, y = points - points_mean, target - target_mean
    u, strengths, v = np.linalg.svd(y.T @ x)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ v))])  # a rotation, not a mirror
    rotation = u @ np.diag(signs) @ v
    spread = (x**2).sum()
    scale = (strengths * signs).sum() / spread if spread else 0.0
    return scale * x @ rotation.T + target_mean


def auc_of_pck(errors: np.ndarray, highest: float) -> np.ndarray:
    """Area under the curve of PCK (N,), from 0 to 1.

    PCK(t), the percentage of correct keypoints, is the share of joints whose error is at most t. The area is taken by
    the trapezoidal rule over 100 thresholds from 0 to `highest` and divided by it, as FreiHAND's evaluation does.

    Args:
        errors: (N, 21) of `joint_errors`.
        highest: the last threshold, in the unit of the errors: 50 mm, or 0.5 palm lengths.
    """
    thresholds = np.linspace(0, highest, AUC_STEPS)
    known = ~np.isnan(errors)
    correct = (errors[..., None] <= thresholds).sum(axis=1)  # (N, 100)
    with np.errstate(invalid="ignore"):
        pck = correct / known.sum(axis=1, keepdims=True)
    return ((pck[:, 1:] + pck[:, :-1]) / 2).mean(axis=1)


def mrrpe(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean relative-root position error (N,): how far the left wrist is off, seen from the right wrist.

    Args:
        predicted: left wrist minus right wrist (N, 3); `true` likewise, NaN where there are not two hands.
    """
    return np.linalg.norm(predicted - true, axis=-1)


def mpvpe(predicted: np.ndarray, true: np.ndarray, predicted_wrist: np.ndarray, true_wrist: np.ndarray) -> np.ndarray:
    """Mean per-vertex position error (N,): the mean distance of a hand's vertices, wrist on wrist.

    Args:
        predicted: vertices (N, V, 3) in the order of `true`.
        predicted_wrist: wrists (N, 3), for InterWild those that MANO's joint regressor gives; `true_wrist` likewise.
    """
    return _mean(np.linalg.norm((predicted - predicted_wrist[:, None]) - (true - true_wrist[:, None]), axis=-1))


def rrve(predicted: np.ndarray, true: np.ndarray, predicted_wrist: np.ndarray, true_wrist: np.ndarray) -> np.ndarray:
    """Right-hand-relative vertex error (N,): the mean distance of the vertices of both hands, right wrist on right.

    So an error of the left hand's place counts as well as that of each hand's shape.

    Args:
        predicted: vertices (N, 2, V, 3), right hand first, in the order of `true`.
        predicted_wrist: wrists (N, 2, 3); `true_wrist` likewise.
    """
    ours, theirs = predicted - predicted_wrist[:, :1, None], true - true_wrist[:, :1, None]
    both_known = ~np.isnan(theirs).all(axis=(2, 3)).any(axis=1)
    errors = np.linalg.norm(ours - theirs, axis=-1)
    return np.where(both_known, _mean(errors.reshape(len(errors), -1)), np.nan)


def _from_wrist(joints: np.ndarray) -> np.ndarray:
    return joints - joints[..., WRIST : WRIST + 1, :]


def _mean(errors: np.ndarray) -> np.ndarray:
    """The mean over the last axis, NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, about a hand without any number
        return np.nanmean(errors, axis=-1)
