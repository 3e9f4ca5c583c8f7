"""Gesture accuracy, and the feature extractor that is trained on synthetic hands."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, error_of

import hand_confidence
from core.hands.crops import Hand
from core.hands.fingers import ANY_THUMB, GESTURE_FINGERS, extended_fingers, shows_gesture
from synthetic_hands import make_dataset, train_features, train_mini
from synthetic_hands.hand import POSES, joints_of, rotation


@pytest.mark.parametrize("gesture", POSES)
def test_the_true_joints_of_every_gesture(gesture):
    joints = joints_of(POSES[gesture])
    for turn in (np.eye(3), rotation(70, 20, 150), np.diag([-1.0, 1, 1])):
        shown = set(extended_fingers(3 * joints @ turn.T + [5, 1, 2]))
        ignored = {"thumb"} if gesture in ANY_THUMB else set()
        assert shown - ignored == set(GESTURE_FINGERS[gesture].split()) - ignored


def test_a_hand_counts_in_the_pictures_own_shape():
    joints = joints_of(POSES["peace"])
    relative = (joints * (1, -1, 1) / 8 + (0.5, 0.5, 0)) / (2, 1, 2)  # of a picture twice as wide as high
    hand = Hand(relative, "Right", 0.9)
    assert shows_gesture([hand], "peace", (200, 100)) and not shows_gesture([hand], "palm", (200, 100))
    assert not shows_gesture([], "fist", (64, 64))


def test_gesture_accuracy_of_a_folder(tmp_path, capsys):
    make_dataset.main(["--output_dir", str(tmp_path / "d"), "--gestures", "palm", "--num", "12", "--num_workers", "1"])
    common = ["--image_folder", str(tmp_path / "d" / "palm"), "--num_workers", "1", "--bootstrap", "100"]
    accuracy = {}
    for gesture in ("palm", "fist"):
        hand_confidence.main([*common, "--gesture", gesture, "--json", str(tmp_path / "out.json")])
        result = json.loads((tmp_path / "out.json").read_text())
        low, high = result["gesture_accuracy_interval_95"]
        assert low <= result["gesture_accuracy"] <= high
        accuracy[gesture] = result["gesture_accuracy"]
    assert accuracy["palm"] >= 0.75 and accuracy["fist"] == 0
    assert "of 12 images show palm" in capsys.readouterr().out
    assert "fingers are known of call, dislike" in error_of(
        hand_confidence.main, [*common, "--gesture", "wave"], capsys
    )


def test_real_open_hands():
    folder = ROOT.parent / "shared" / "data" / "sign-language-digits" / "5"
    if not folder.is_dir():
        pytest.skip("shared/data/sign-language-digits is not beside the repository")
    from core.hands.crops import find_hands
    from core.runs.photos import load_photo

    photos = [load_photo(path) for path in sorted(folder.iterdir())[:20]]
    assert sum(shows_gesture(find_hands(photo), "palm", photo.size) for photo in photos) >= 18


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
