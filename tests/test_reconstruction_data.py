"""Labelled sets for reconstruction: left and right, axes, units, views, order, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from reconstruction_helpers import SIZE, make_hands, two_hands, write_set

from attentionhand.reconstruction import data
from attentionhand.reconstruction.data import LEFT, MM, PALMS, RIGHT, View, read_hands
from core.runs.errors import UserError


def chirality(joints: np.ndarray) -> float:
    """Above 0 for a right hand in OpenCV's axes: where the thumb is, seen with the palm in front and fingers up."""
    up, aside = joints[9] - joints[0], joints[5] - joints[17]
    return float(np.dot(np.cross(aside, up), palm_normal(joints)))


def palm_normal(joints: np.ndarray) -> np.ndarray:
    """Towards the palm's side: fingers bend to it, so a bent finger's tip lies there."""
    knuckles, tips = joints[[5, 9, 13, 17]], joints[[8, 12, 16, 20]]
    return (tips - knuckles).mean(axis=0) - (joints[9] - joints[0])


@pytest.fixture
def single(tmp_path):
    return write_set(tmp_path / "single", make_hands(8))


@pytest.fixture
def pairs(tmp_path):
    return write_set(tmp_path / "pairs", two_hands(6))


# Conventions


def test_hands_lie_right_hand_first(single, pairs):
    hands = read_hands(single)
    assert hands.has_hand.tolist() == [[True, False], [False, True]] * 4
    assert hands.unit == PALMS
    hands = read_hands(pairs)
    assert hands.has_hand.all() and hands.unit == MM
    given = two_hands(6)
    assert hands.joints_3d[:, RIGHT] == pytest.approx(1000 * given["joints_3d"][:, 1], rel=1e-5)
    assert hands.joints_3d[:, LEFT] == pytest.approx(1000 * given["joints_3d"][:, 0], rel=1e-5)
    assert hands.left_wrist == pytest.approx(np.tile([[120, 0, -20]], (6, 1)), abs=1e-2)
    assert hands.groups.tolist() == ["one", "two"] * 3


def test_axes_are_opencvs_whatever_was_given(tmp_path, single):
    arrays = make_hands(8)
    other = {**arrays, "joints_3d": arrays["joints_3d"] * [1, -1, -1]}
    assert read_hands(write_set(tmp_path / "opencv", other)).joints_3d[:, 0] == pytest.approx(
        read_hands(single).joints_3d[:, 0], nan_ok=True
    )
    down = read_hands(single).joints_3d[0, RIGHT, :, 1]
    assert down == pytest.approx(-arrays["joints_3d"][0, :, 1])


def test_millimetres_and_metres_are_one_unit(tmp_path):
    arrays = make_hands(4)
    in_mm = read_hands(write_set(tmp_path / "mm", {**arrays, "joints_3d": 95 * arrays["joints_3d"]}))
    in_m = read_hands(write_set(tmp_path / "m", {**arrays, "joints_3d": 0.095 * arrays["joints_3d"]}))
    assert in_mm.unit == in_m.unit == MM
    assert in_mm.joints_3d == pytest.approx(in_m.joints_3d, rel=1e-5, nan_ok=True)


def test_drawn_hands_are_as_their_handedness_says():
    """The drawn hands' own frame: thumb of a right hand towards +x with the palm to the camera, y up."""
    arrays = make_hands(40)
    for joints, side in zip(arrays["joints_3d"] * [1, -1, -1], arrays["handedness"]):
        if abs(chirality(joints)) > 0.05:  # straight fingers do not tell
            assert (chirality(joints) > 0) == (side == "Right")


def test_a_mirrored_hand_changes_handedness(single):
    hands = read_hands(single)
    for row in range(4):
        plain = data.target_of(hands, row, SIZE)
        mirrored = data.target_of(hands, row, SIZE, View(mirrored=True))
        assert mirrored.has_hand.tolist() == plain.has_hand.tolist()[::-1]
        assert mirrored.joints.numpy() == pytest.approx(plain.joints.numpy()[::-1] * [-1, 1, 1], abs=1e-6)
        assert mirrored.picture.numpy() == pytest.approx(plain.picture.numpy()[:, :, ::-1], abs=0.05)


def test_mirrored_pairs_change_places(pairs):
    hands = read_hands(pairs)
    plain, mirrored = data.target_of(hands, 0, SIZE), data.target_of(hands, 0, SIZE, View(mirrored=True))
    assert plain.left_wrist.numpy() == pytest.approx([1.2, 0, -0.2], abs=1e-4)  # in the network's unit
    # The hand that was right is left now, mirrored: it was on the left side and is now on the right.
    assert mirrored.left_wrist.numpy() == pytest.approx([1.2, 0, 0.2], abs=1e-4)


# Views


@pytest.mark.parametrize(
    "view",
    [View(), View(degrees=25), View(mirrored=True), View(scale=1.2, shift=(0.1, -0.05), degrees=-40, mirrored=True)],
)
def test_picture_and_joints_are_moved_alike(single, view):
    """A dot at each joint of the photo lies where the moved joint is: pixels by the matrix, 3D by the same turn."""
    hands = read_hands(single)
    for row, side in ((0, RIGHT), (1, LEFT)):
        matrix = data.crop_matrix(hands.joints_2d[row], 256, view)
        for joint in (4, 8, 20):
            photo = np.zeros((SIZE, SIZE, 3), np.uint8)
            x, y = hands.joints_2d[row, side, joint]
            if not (2 < x < SIZE - 3 and 2 < y < SIZE - 3):
                continue
            photo[int(y), int(x)] = 255
            spot = data.crop(photo, matrix, 256)[..., 0].astype(float)
            if not spot.sum():
                continue
            rows, columns = np.mgrid[:256, :256] + 0.5
            found = np.array([(columns * spot).sum(), (rows * spot).sum()]) / spot.sum()
            expected = matrix[:, :2] @ [int(x) + 0.5, int(y) + 0.5] + matrix[:, 2]
            assert found == pytest.approx(expected, abs=0.6)
        moved_2d = hands.joints_2d[row, side] @ matrix[:, :2].T
        moved_3d, _ = data.seen_joints(hands.joints_3d[row], view)
        flat = moved_3d[side if not view.mirrored else 1 - side][:, :2]
        zoom = np.sqrt(abs(np.linalg.det(matrix[:, :2]))) * SIZE / 5  # pixels a palm length: the set is orthographic
        assert moved_2d - moved_2d[0] == pytest.approx(zoom * flat, abs=0.05)


def test_large_photos_are_averaged_down():
    photo = np.zeros((512, 512, 3), np.uint8)
    photo[::2] = 255  # stripes of a pixel: grey, not black or white
    small = data.crop(photo, np.array([[0.125, 0, 0], [0, 0.125, 0]]), 64)
    assert abs(small.astype(int) - 127).max() < 4


def test_occlusion_and_colours_leave_the_label(single):
    hands = read_hands(single)
    plain = data.target_of(hands, 0, SIZE)
    changed = data.target_of(hands, 0, SIZE, View(gain=(0.8, 1, 1.2), contrast=1.2, occluder=(0.2, 0.3, 0.5, 0.6)))
    assert (plain.picture - changed.picture).abs().max() > 0.1
    assert torch.equal(plain.joints, changed.joints)
    assert changed.picture.min() >= 0 and changed.picture.max() <= 1


def test_views_are_drawn_from_seed_and_place_alone(single):
    hands, order = read_hands(single), np.arange(8)
    first, again = (data.TrainingTargets(hands, order, SIZE, seed=3) for _ in range(2))
    assert torch.equal(first[5].picture, again[5].picture)
    cv2.setRNGSeed(7), torch.manual_seed(7), np.random.seed(7)
    assert torch.equal(first[5].picture, again[5].picture)
    assert not torch.equal(first[5].picture, data.TrainingTargets(hands, order, SIZE, seed=4)[5].picture)


# Order


def test_each_pass_takes_every_picture_once():
    order = data.training_order([3, 5], None, 24, seed=0)
    for start in range(0, 24, 8):
        assert sorted(order[start : start + 8]) == list(range(8))


def test_shares_of_the_sets_hold():
    order = data.training_order([10, 1000], [3, 1], 4000, seed=0)
    assert (order < 10).mean() == pytest.approx(0.75, abs=0.03)
    of_first = order[order < 10]
    assert sorted(of_first[:10]) == list(range(10))  # in passes, too
    assert len(data.training_order([10, 1000], [3, 1], 0, seed=0)) == 0


# What is refused


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        read_hands(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(folder, **arrays):
    with np.load(folder / "joints.npz") as file:
        content = {**dict(file), **arrays}
    np.savez(folder / "joints.npz", **{name: array for name, array in content.items() if array is not None})
    return folder


def test_missing_labels(single):
    assert "has no 3D labels (joints_3d)" in refused(changed(single, joints_3d=None))
    changed(single, joints_3d=make_hands(8)["joints_3d"])
    assert "has no handedness" in refused(changed(single, handedness=None))
    assert "'?' is not Right or Left" in refused(changed(single, handedness=np.array(["?"] * 8)))
    assert "two Right hands" in refused(
        changed(single, **{**two_hands(8), "handedness": np.array([["Right", "Right"]] * 8)})
    )
    (single / "joints.npz").write_bytes(b"PK nonsense")
    assert "not an .npz file" in refused(single)
    (single / "joints.npz").unlink()
    assert "joints.npz: no such file" in refused(single)


def test_pictures_without_a_hand(single):
    joints = make_hands(8)["joints_3d"]
    joints[2] = np.nan
    assert "row 3 has no hand with a 3D wrist" in refused(changed(single, joints_3d=joints))


def test_counts_and_shapes(single):
    assert "the counts must agree" in refused(changed(single, handedness=np.array(["Left"] * 7)))
    assert "joints_3d is (8, 20, 3)" in refused(
        changed(single, handedness=make_hands(8)["handedness"], joints_3d=np.zeros((8, 20, 3)))
    )


def test_units(single, tmp_path):
    joints = make_hands(8)["joints_3d"]
    assert "no hand in metres, millimetres or palm lengths" in refused(changed(single, joints_3d=7 * joints))
    in_mm = write_set(tmp_path / "mm", {**make_hands(4), "joints_3d": 90 * make_hands(4)["joints_3d"]})
    in_palms = write_set(tmp_path / "palms", make_hands(4))
    with pytest.raises(UserError, match="mm: labels in mm, but those of .*palms are in palm lengths"):
        data.check_same_unit([read_hands(in_palms), read_hands(in_mm)])


def test_joints_that_lie_elsewhere_in_3d(single):
    joints = make_hands(8)["joints_3d"]
    assert "do not lie as joints_2d do" in refused(changed(single, joints_3d=joints * [-1, 1, 1]))
    assert "do not lie as joints_2d do" in refused(changed(single, joints_3d=joints[..., [2, 1, 0]]))


def test_pictures_of_another_size(single, tmp_path):
    larger = write_set(tmp_path / "larger", make_hands(8), size=4 * SIZE)
    assert "keep to a quarter" in refused(larger)
    smaller = shutil.copytree(single, tmp_path / "smaller")
    for path in (smaller / "rgb").iterdir():
        Image.open(path).resize((16, 16)).save(path)
    assert "16x16 pixels, but joints_2d" in refused(smaller)
    known = changed(single, size=np.full((8, 2), 2 * SIZE))
    assert f"{SIZE}x{SIZE} pixels, but joints_2d of {single} are for 128x128" in refused(known)


def test_modalities(single):
    lines = (single / "modalities.json").read_text().splitlines()
    for bad, message in (
        ('{"mesh": "a"}', "line 8: has no 'rgb'"),
        (json.dumps({"rgb": "../a.png"}), "not a path inside"),
        (json.dumps({"rgb": "rgb/no.png"}), "no file 'rgb/no.png'"),
    ):
        (single / "modalities.json").write_text("\n".join([*lines[:-1], bad]))
        assert message in refused(single)


def test_an_unreadable_photo_is_named(single):
    (single / "rgb" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="3.png"):
        data.check_photos([read_hands(single)])
