"""InterHand2.6M's layout: what InterWild's loader makes of it is what went in."""

import json

import numpy as np
import pytest
from conftest import error_of
from reconstruction_helpers import make_hands, two_hands, write_set

from attentionhand.labels import interhand
from attentionhand.reconstruction import interwild
from attentionhand.reconstruction.data import LEFT, RIGHT, read_hands

# The names of InterHand2.6M's joints as InterWild's loader lists them for one hand, and MediaPipe's.
INTERHAND = [f"{finger}_{joint}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky") for joint in (4, 3, 2, 1)]
INTERHAND.append("Wrist")
MEDIAPIPE = ["Wrist"] + [
    f"{f}_{joint}" for f in ("Thumb", "Index", "Middle", "Ring", "Pinky") for joint in (1, 2, 3, 4)
]


def load_as_interwild(folder, split="train"):
    """What its loader gets of each annotation: picture, hand type, joints of the camera in mm and in pixels, valid."""
    parts = {}
    for what in ("data", "camera", "joint_3d", "MANO_NeuralAnnot"):
        parts[what] = json.loads((folder / "annotations" / split / f"InterHand2.6M_{split}_{what}.json").read_text())
    images = {image["id"]: image for image in parts["data"]["images"]}
    for label in parts["data"]["annotations"]:
        image = images[label["image_id"]]
        capture, camera, frame = str(image["capture"]), str(image["camera"]), str(image["frame_idx"])
        of = {name: np.array(part[camera], float) for name, part in parts["camera"][capture].items()}
        moved = -np.dot(of["camrot"], of["campos"].reshape(3, 1)).reshape(3)
        world = np.array(parts["joint_3d"][capture][frame]["world_coord"], float).reshape(-1, 3)
        valid = np.array(parts["joint_3d"][capture][frame]["joint_valid"], float).reshape(-1, 1)
        seen = np.dot(of["camrot"], world.T).T + moved
        seen[valid[:, 0] == 0] = 1
        pixels = seen[:, :2] / seen[:, 2:] * of["focal"] + of["princpt"]
        assert parts["MANO_NeuralAnnot"][capture][frame].copy() == {"right": None, "left": None}
        assert (folder / "images" / split / image["file_name"]).is_file()
        assert np.array(label["joint_valid"], float).reshape(-1, 1).shape == (42, 1)
        yield label["hand_type"], seen, pixels, valid


def by_name(joints: np.ndarray, side: int) -> np.ndarray:
    """One hand of 42 joints, right hand first, in MediaPipe's order."""
    named = dict(zip(INTERHAND, joints[21 * side : 21 * side + 21]))
    return np.array([named[name] for name in MEDIAPIPE])


@pytest.mark.parametrize("arrays", [make_hands(6), two_hands(4)], ids=["single", "pairs"])
def test_round_trip(arrays, tmp_path):
    source = write_set(tmp_path / "data", arrays)
    interwild.main(["--data", str(source), "--output_dir", str(tmp_path / "out")])
    hands, factor = read_hands(source), 100 if arrays["joints_3d"].ndim == 3 else 1
    found, labels = list(load_as_interwild(tmp_path / "out")), list(interhand.read(tmp_path / "out", "train"))
    assert len(found) == len(hands.photos)
    for row, (kind, seen, pixels, valid) in enumerate(found):
        right, left = hands.has_hand[row]
        assert kind == {(True, True): "interacting", (True, False): "right", (False, True): "left"}[right, left]
        for side, there in ((RIGHT, right), (LEFT, left)):
            assert valid[21 * side : 21 * side + 21].all() == there
            if there:
                ours, theirs = by_name(seen, side), factor * hands.joints_3d[row, side]
                assert ours - ours[0] == pytest.approx(theirs - theirs[0], abs=1e-2)
                assert by_name(pixels, side) == pytest.approx(hands.joints_2d[row, side], abs=0.5)
        again = {hand.handedness: hand.joints_3d for hand in labels[row].hands}  # as attentionhand.prepare reads it
        assert set(again) == {name for name, there in (("Right", right), ("Left", left)) if there}
        for name, joints in again.items():
            assert 1000 * joints == pytest.approx(by_name(seen, RIGHT if name == "Right" else LEFT), rel=1e-5)
        if right and left:
            assert by_name(seen, LEFT)[0] - by_name(seen, RIGHT)[0] == pytest.approx(hands.left_wrist[row], abs=1e-2)


def test_a_known_camera_is_kept(tmp_path):
    arrays = two_hands(3)
    focal, princpt = np.full((3, 2), 300.0), np.full((3, 2), 30.0)
    arrays["joints_2d"] = (arrays["joints_3d"][..., :2] / arrays["joints_3d"][..., 2:] * 300 + 30).astype(np.float32)
    source = write_set(tmp_path / "data", {**arrays, "focal": focal, "princpt": princpt})
    interwild.main(["--data", str(source), "--output_dir", str(tmp_path / "out"), "--split", "test"])
    for row, (_, seen, pixels, _) in enumerate(load_as_interwild(tmp_path / "out", "test")):
        assert by_name(seen, LEFT) == pytest.approx(1000 * arrays["joints_3d"][row, 0], rel=1e-5)
        assert by_name(pixels, LEFT) == pytest.approx(arrays["joints_2d"][row, 0], abs=1e-3)


def test_refusals(tmp_path, capsys):
    arrays = two_hands(3)
    wrong = {"focal": np.full((3, 2), 100.0), "princpt": np.full((3, 2), 10.0)}
    source = write_set(tmp_path / "data", {**arrays, **wrong})
    given = ["--data", source, "--output_dir", tmp_path / "out"]
    assert "pixels off joints_2d" in error_of(interwild.main, given, capsys)
    assert not (tmp_path / "out").exists()
    given = ["--data", source, "--output_dir", source]
    assert "exists already" in error_of(interwild.main, given, capsys)
