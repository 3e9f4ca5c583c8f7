"""The parametric hand: its labels fit its pictures, and MediaPipe finds it."""

import numpy as np
import pytest
import torch
from PIL import Image

from core.hands.detection import find_hands
from core.hands.surface import capsules_of, distance, part_distances, support_points, trace
from hand1000.gestures import gesture_mentions
from synthetic_hands.hand import FINGER_BONES, POSES, THUMB_BONES, joints_of, rotation
from synthetic_hands.sample import draw_sample, skin_colour

pytestmark = pytest.mark.usefixtures("one_thread")


def capsules(gesture="palm"):
    return capsules_of(torch.tensor(support_points(joints_of(POSES[gesture])), dtype=torch.float32))


def test_bones_keep_their_length_and_gestures_their_fingers():
    for gesture, pose in POSES.items():
        joints = joints_of(pose, noise=6, rng=np.random.default_rng(0))
        bones = np.linalg.norm(np.diff(joints[1:].reshape(5, 4, 3), axis=1), axis=2)
        assert np.allclose(bones, np.vstack([THUMB_BONES, FINGER_BONES]))
        straight = np.linalg.norm(joints[8::4] - joints[5::4], axis=1) / FINGER_BONES.sum(axis=1) > 0.9
        expected = {"call": "0001", "four": "1111", "ok": "0111", "peace": "1100", "rock": "1001", "three": "1110"}
        if gesture in expected:
            assert "".join(map(str, straight.astype(int))) == expected[gesture]
    turn = rotation(20, 30, 40)
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    assert rotation(90, 0, 0) @ [1, 0, 0] == pytest.approx([0, 1, 0])  # against the clock


def test_distances_are_those_of_tapered_capsules():
    hand, rng = capsules(), np.random.default_rng(0)
    points = torch.tensor(rng.uniform(-1.5, 1.5, (50, 3)), dtype=torch.float32)
    found, _ = part_distances(points, hand)
    for point, row in zip(points.numpy().astype(float), found):
        for part, value in enumerate(row):
            start, end = hand.start[part].numpy().astype(float), hand.end[part].numpy().astype(float)
            along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            radius = (1 - along) * float(hand.start_radius[part]) + along * float(hand.end_radius[part])
            assert float(value) == pytest.approx(
                np.linalg.norm(point - start - along * (end - start)) - radius, abs=1e-4
            )
    assert (distance(points, hand) <= found.min(dim=1).values + 1e-5).all()  # melting adds, never takes away


@pytest.mark.parametrize("focal", [None, 6.0])
def test_rays_end_on_the_surface(focal):
    hand = capsules("peace")
    hit = trace(hand, 64, 2.2, focal)
    points, normals = hit.point[hit.mask], hit.normal[hit.mask]
    assert 300 < len(points) < 2000
    assert distance(points, hand).abs().max() < 0.01
    assert (normals[:, 2] > -0.3).all() and torch.allclose(normals.norm(dim=1), torch.ones(len(normals)), atol=1e-5)
    rows, columns = hit.mask.nonzero().T
    x, y = (columns + 0.5) / 32 - 1, 1 - (rows + 0.5) / 32
    shrink = 1 if focal is None else (focal - points[:, 2]) / focal  # a pinhole's rays meet at the camera
    assert torch.allclose(points[:, 0], 2.2 * x * shrink, atol=1e-3)
    assert torch.allclose(points[:, 1], 2.2 * y * shrink, atol=1e-3)


def test_labels_fit_the_picture():
    for gesture in ("palm", "fist", "call"):
        for seed in range(4):
            sample = draw_sample(gesture, seed, size=96)
            again = draw_sample(gesture, seed, size=96)
            assert (sample.rgb == again.rgb).all() and sample.caption == again.caption
            rows, columns = sample.mask.nonzero()
            assert sample.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert (sample.mesh[~sample.mask].max(axis=-1) < 128).mean() > 0.99 and sample.mesh[sample.mask].mean() > 90
            inside = sample.mask[tuple(sample.joints_2d[:, ::-1].astype(int).T)]
            assert inside.mean() > 0.9
            # Joints lie under the skin: within a finger's thickness of what the camera sees.
            depth = sample.depth[tuple(sample.joints_2d[:, ::-1].astype(int).T)]
            assert (depth - sample.joints_3d[:, 2] > -0.12).all()
            spans = np.ptp(sample.joints_2d, axis=0) / np.ptp(sample.joints_3d[:, :2], axis=0)
            assert spans[0] == pytest.approx(spans[1], rel=1e-4)
            assert gesture_mentions(sample.caption) == []
    assert (draw_sample("palm", 0).rgb != draw_sample("palm", 1).rgb).any()
    assert {draw_sample("palm", seed, size=32).handedness for seed in range(8)} == {"Left", "Right"}
    assert {draw_sample("palm", seed, size=32, handedness="Left").handedness for seed in range(8)} == {"Left"}
    assert skin_colour(0).sum() > skin_colour(0.5).sum() > skin_colour(1).sum()


def test_a_left_hand_has_its_thumb_on_the_other_side():
    for seed in range(8):
        joints, handedness = (getattr(draw_sample("palm", seed, size=32), name) for name in ("joints_2d", "handedness"))
        assert (joints[4, 0] > joints[20, 0]) == (handedness == "Right")


def test_mediapipe_finds_the_hands():
    errors, found = [], 0
    for gesture in POSES:
        for seed in range(1000, 1004):
            sample = draw_sample(gesture, seed, size=64)
            for hand in find_hands(Image.fromarray(sample.rgb)):
                found += 1
                offset = np.linalg.norm(hand.landmarks[:, :2] * 64 - sample.joints_2d, axis=1).mean()
                errors.append(offset / np.ptp(sample.joints_2d, axis=0).max())
    assert found >= 0.85 * 4 * len(POSES)  # 95 % of the benchmark's 360; MediaPipe rounds by the processor
    assert np.median(errors) < 0.1


def test_a_malformed_hand_has_the_same_text_and_bones_of_some_length():
    for seed, gesture in enumerate(sorted(POSES)):
        well, ill = (draw_sample(gesture, seed, size=32, is_malformed=kind) for kind in (False, True))
        assert ill.caption == well.caption and ill.handedness == well.handedness
        assert not np.allclose(ill.joints_3d, well.joints_3d) and ill.mask.any()
        bones = np.linalg.norm(np.diff(ill.joints_3d, axis=0), axis=1)
        assert np.isfinite(bones).all() and bones.min() > 1e-3  # a capsule of no length has no direction
