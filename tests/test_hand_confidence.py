"""hand_confidence.py: HAND-CONF, the share of pictures with a hand, gesture accuracy."""

import csv
import json

import numpy as np
import pytest
from conftest import error_of
from PIL import Image

import hand_confidence
from core.hands.detection import find_hands
from core.metrics.scores import METRICS, NO_SCORE, all_scores, hand_scores
from core.runs.photos import list_photos, load_photo
from synthetic_hands import make_dataset


def test_hand_confidence_script(hand_folders, tmp_path, capsys):
    table, result = tmp_path / "hands.csv", tmp_path / "hands.json"
    outputs = ["--bootstrap", "100", "--csv", str(table), "--json", str(result)]
    hand_confidence.main(["--image_folder", str(hand_folders[1]), "--num_workers", "2", *outputs])
    scores, rows = [], list(csv.DictReader(table.open()))
    for path, row in zip(list_photos(hand_folders[1]), rows, strict=True):
        found = find_hands(load_photo(path), max_num_hands=2, min_detection_confidence=0.0)
        scores += [hand.score for hand in found]
        assert (row["image"], int(row["hands"])) == (path.name, len(found))
    assert [int(row["hands_at_0.5"]) for row in rows] == [1, 2, 1, 0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == f"{hand_folders[1]}: 5 images, {len(scores)} hands, 80.0% of images with a hand at confidence 0.5"
    )
    assert lines[1].startswith(f"HAND-CONF: {np.mean(scores):.6f}, standard error: 0.0")
    written = json.loads(result.read_text())
    assert written["value"] == pytest.approx(np.mean(scores)) and written["share_with_hand"] == 0.8
    assert written["interval_95"][0] <= written["value"] <= written["interval_95"][1]


def test_gesture_accuracy_of_a_folder(tmp_path, capsys):
    make_dataset.main(["--output_dir", str(tmp_path / "d"), "--gestures", "palm", "--num", "12", "--num_workers", "1"])
    common = ["--image_folder", str(tmp_path / "d" / "palm"), "--num_workers", "1", "--bootstrap", "100"]
    accuracy, output = {}, tmp_path / "out.json"
    for gesture in ("fist", "palm"):
        hand_confidence.main([*common, "--gesture", gesture, "--json", str(output)])
        result = json.loads(output.read_text())
        low, high = result["gesture_accuracy_interval_95"]
        assert low <= result["gesture_accuracy"] <= high
        accuracy[gesture] = result["gesture_accuracy"]
    assert accuracy["palm"] >= 0.75 and accuracy["fist"] == 0
    assert "of 12 images show palm" in capsys.readouterr().out
    # The same fingers by name, for gestures that HaGRID does not have.
    hand_confidence.main([*common, "--fingers", "pinky", "thumb", "index", "middle", "ring", "--json", str(output)])
    assert json.loads(output.read_text())["gesture_accuracy"] == accuracy["palm"]
    assert "of 12 images show exactly pinky thumb index middle ring" in capsys.readouterr().out
    message = error_of(hand_confidence.main, [*common, "--gesture", "wave"], capsys)
    assert (
        "--gesture wave: its fingers are not known; name them with --fingers, or give one of call, dislike" in message
    )
    message = error_of(hand_confidence.main, [*common, "--gesture", "palm", "--fingers", "index"], capsys)
    assert "--fingers: not allowed with argument --gesture" in message
    # The same flow gives the scores of a report.
    scores = hand_scores(tmp_path / "d" / "palm", gesture="palm", resamples=100, seed=0, num_workers=0)
    assert scores["gesture accuracy"].value == accuracy["palm"]
    assert [scores["HAND-CONF"].value, *scores["HAND-CONF"][1:]] == [result["value"], *result["interval_95"]]


def test_all_scores_of_a_folder(hand_folders, extractor, tmp_path, capsys):
    """With fewer than 10 pictures there are values without intervals; the real photos' features are kept."""
    from core.metrics import fid, kid

    options = {"gesture": "palm", "resamples": 100, "seed": 0, "num_workers": 0, "feature_extractor": extractor}
    scores = all_scores(*hand_folders, cache=tmp_path, **options)
    assert set(scores) == set(METRICS)
    assert scores["FID"].value == fid(*hand_folders, feature_extractor=extractor)
    assert scores["KID-H"].value == kid(*hand_folders, hands=True, feature_extractor=extractor)[0]
    assert np.isnan(scores["FID"][1:]).all() and scores["hand found"].low < 0.8 < scores["hand found"].high
    assert {path.name for path in tmp_path.iterdir()} == {"real.npz", "real-H.npz"}
    blank = tmp_path / "blank"
    blank.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(blank / f"{number}.png")
    scores = all_scores(hand_folders[0], blank, cache=tmp_path, **{**options, "gesture": "wave"})
    assert np.isnan(scores["gesture accuracy"]).all()  # the fingers of a gesture that HaGRID does not have
    assert scores["FID-H"] is NO_SCORE and scores["HAND-CONF"] is NO_SCORE and scores["hand found"].value == 0
    assert "FID-H and KID-H are left out: " in capsys.readouterr().out


def test_mistakes(tmp_path, capsys):
    def error(*more) -> str:
        return error_of(hand_confidence.main, ["--image_folder", tmp_path, "--num_workers", "1", *more], capsys)

    assert "holds no photos" in error()
    picture = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(picture)
    assert f"{tmp_path}: MediaPipe found no hand in its 1 picture" in error()
    assert "a.png: is an input of this command" in error("--json", picture)
    assert "argument --bootstrap: 10 is too few for a 95 % interval: 100 at least" in error("--bootstrap", 10)
    assert "argument --bootstrap: 'nan' is not a whole number" in error("--bootstrap", "nan")
    picture.write_bytes(b"not a picture")
    assert "a.png: not a readable image" in error()
    (tmp_path / "mu_0").mkdir()
    assert "holds a folder of pictures for each mu; measure one of them (mu_0)" in error()
