"""Which fingers a hand extends, and the feature extractor that is trained on synthetic hands."""

import numpy as np
import pytest
import torch
from conftest import ROOT, error_of

from core.hands.detection import Hand, find_hands
from core.hands.fingers import extended_fingers, fingers_of_gesture, shows_fingers
from core.runs.photos import load_photo
from synthetic_hands import train_features, train_mini
from synthetic_hands.hand import POSES, joints_of, rotation


@pytest.mark.parametrize("gesture", POSES)
def test_the_true_joints_of_every_gesture(gesture):
    joints = joints_of(POSES[gesture])
    for turn in (np.eye(3), rotation(70, 20, 150), np.diag([-1.0, 1, 1])):
        assert extended_fingers(3 * joints @ turn.T + [5, 1, 2]) in fingers_of_gesture(gesture)


def test_fingers_of_gestures():
    assert fingers_of_gesture("peace") == [{"index", "middle"}] and fingers_of_gesture("fist") == [set()]
    four = {"index", "middle", "ring", "pinky"}
    assert fingers_of_gesture("stop") == [four, four | {"thumb"}]  # the thumb may lie along the palm or beside it


def test_a_hand_counts_in_the_pictures_own_shape():
    joints = joints_of(POSES["peace"])
    relative = (joints * (1, -1, 1) / 8 + (0.5, 0.5, 0)) / (2, 1, 2)  # of a picture twice as wide as high
    hand = Hand(relative, "Right", 0.9)
    for gesture in ("peace", "palm"):
        assert shows_fingers([hand], fingers_of_gesture(gesture), (200, 100)) == (gesture == "peace")
    assert not shows_fingers([], [frozenset()], (64, 64))


def test_real_open_hands():
    folder = ROOT.parent / "shared" / "data" / "sign-language-digits" / "5"
    if not folder.is_dir():
        pytest.skip("shared/data/sign-language-digits is not beside the repository")
    photos = [load_photo(path) for path in sorted(folder.iterdir())[:20]]
    palm = fingers_of_gesture("palm")
    assert sum(shows_fingers(find_hands(photo), palm, photo.size) for photo in photos) >= 18


def test_feature_extractor_learns_and_opens_anywhere(tmp_path, capsys):
    train_mini.training_data(tmp_path / "data.npz", 12, 0)
    output = tmp_path / "features.pt"
    train_features.main(["--data", str(tmp_path / "data.npz"), "--output", str(output), "--steps", "40"])
    printed = capsys.readouterr().out
    assert "gesture: " in printed and "wall: " in printed and output.stat().st_size < 2e6
    for path in (output, ROOT / "synthetic_hands" / "mini" / "features.pt"):
        features = torch.jit.load(path)(torch.randint(0, 256, (3, 3, 80, 60), dtype=torch.uint8))
        assert features.shape == (3, 128) and features.isfinite().all()
    message = error_of(train_features.main, ["--data", tmp_path / "no.npz", "--output", output], capsys)
    assert "python -m synthetic_hands.train_mini draws it" in message
