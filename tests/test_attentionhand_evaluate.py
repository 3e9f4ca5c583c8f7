"""Mesh images from labels, and whether generated hands follow their label."""

import json
import shutil
from pathlib import Path

import numpy as np
from conftest import error_of
from PIL import Image

from attentionhand import data, evaluate, prepare
from core.hands.detection import Hand
from core.metrics.intervals import bootstrap_interval
from synthetic_hands import make_dataset


def test_prepared_joints_look_like_the_mesh_images(attention_samples, tmp_path, capsys):
    arguments = ["--labels", "joints", "--root", str(attention_samples), "--num_workers", "1"]
    prepare.main([*arguments, "--output_dir", str(tmp_path / "data"), "--min_hand", "8"])
    listed = data.read_modalities(tmp_path / "data" / "modalities.json")
    for sample, own in zip(listed, data.read_modalities(attention_samples / "modalities.json"), strict=True):
        ours, theirs = (data.grey(data.load_picture(one.mesh)) > 60 for one in (sample, own))
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.85
        assert np.abs(np.array(sample.box) - own.box).max() <= 3
        assert np.array_equal(data.load_picture(sample.rgb), data.load_picture(own.rgb))
    np.save(tmp_path / "bad.npy", np.zeros((2, 20, 3)))
    arguments = ["--labels", "joints", "--root", tmp_path / "bad.npy", "--output_dir", tmp_path / "x"]
    assert "joints_3d is (2, 20, 3), not (N, 21, 3)" in error_of(prepare.main, arguments, capsys)


def test_two_hands_of_a_label_are_compared_each_with_the_nearest_hand():
    rng = np.random.default_rng(0)
    joints = rng.uniform(0.1, 0.4, (2, 21, 2)) + [[[0, 0]], [[0.5, 0.5]]]
    hands = [Hand(np.c_[one, np.zeros(21)], "Left", 0.9) for one in joints[::-1]]
    assert evaluate.joint_errors(hands, joints).tolist() == [0] * 42
    assert (evaluate.joint_errors(hands[:1], joints)[:21] > 0.5).all()
    one_hand = np.stack([joints[0], np.full((21, 2), np.nan)])
    assert evaluate.joint_errors(hands, one_hand).tolist() == [0] * 21
    assert np.isnan(evaluate.joint_errors([], joints)).all()


def test_evaluation_tells_the_right_label(tmp_path, capsys):
    folder = tmp_path / "data"
    options = ["--layout", "attentionhand", "--gestures", "palm", "call", "peace", "--num", "4", "--size", "128"]
    make_dataset.main(["--output_dir", str(folder), *options])
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        shutil.copy(folder / "rgb" / f"{number:08}.png", tmp_path / "pictures" / f"result_{number:03d}_0.png")
    arguments = ["--labels", str(folder / "joints.npz"), "--image_folder", str(tmp_path / "pictures")]
    arguments += ["--image_size", "128", "--bootstrap", "100", "--num_workers", "1"]
    results = {}
    for name, more in (("right", []), ("other", ["--shuffle"])):
        path = tmp_path / f"{name}.json"
        evaluate.main([*arguments, *more, "--json", str(path)])
        results[name] = json.loads(path.read_text())
    assert results["right"]["landmark error"][2] < 0.12 < results["other"]["landmark error"][1]
    assert results["right"]["PCK@0.2"][0] > 0.8 > results["other"]["PCK@0.2"][0]

    evaluate.main([*arguments, "--export", str(tmp_path / "accepted"), "--threshold", "0.1"])
    made = np.load(tmp_path / "accepted" / "joints.npz")
    count = len(list((tmp_path / "accepted" / "images").iterdir()))
    assert count == len(made["joints_3d"]) == len(made["image"]) > 6 and (made["error"] <= 0.1).all()
    assert "exists already" in error_of(evaluate.main, [*arguments, "--export", tmp_path / "accepted"], capsys)
    assert "no such file (--labels)" in error_of(
        evaluate.main, ["--labels", tmp_path / "no.npz", "--image_folder", tmp_path / "pictures"], capsys
    )


def test_the_interval_draws_whole_labels():
    """Against the literal bootstrap: labels drawn anew with all of their pictures, NaN left out."""
    values = np.random.default_rng(1).normal(size=11)
    values[3] = np.nan
    groups = [4, 0, 0, 9, 4, 4, 2, 2, 9, 0, 7]
    rng, rows_of = (
        np.random.default_rng(5),
        [np.flatnonzero(np.array(groups) == label) for label in sorted(set(groups))],
    )
    means = []
    for _ in range(200):
        rows = np.concatenate([rows_of[one] for one in rng.integers(len(rows_of), size=len(rows_of))])
        means.append(np.nanmean(values[rows]))
    expected = tuple(np.nanquantile(means, (0.025, 0.975)))
    assert bootstrap_interval(values, groups, resamples=200, seed=5) == expected
    assert np.isnan(bootstrap_interval(np.full(3, np.nan), [0, 1, 1], resamples=100, seed=0)).all()


def test_labels_and_pictures_that_do_not_belong_together(tmp_path, capsys):
    pictures, labels = tmp_path / "pictures", tmp_path / "labels.npz"
    pictures.mkdir()
    Image.new("RGB", (64, 64)).save(pictures / "result_000_0.png")

    def problem(*more) -> str:
        return error_of(evaluate.main, ["--labels", labels, "--image_folder", pictures, *more], capsys)

    labels.write_text("nonsense")
    assert "not an .npz file with joints_2d" in problem()
    np.savez(labels, joints_2d=np.zeros((1, 20, 2)))
    assert "joints_2d is (1, 20, 2), not (N, 21, 2)" in problem()
    joints = np.random.default_rng(0).uniform(0, 512, (1, 21, 2))
    np.savez(labels, joints_2d=joints)
    assert "--shuffle needs at least two labels" in problem("--shuffle")
    assert "no hand fills an eighth of --image_size 8000" in problem("--image_size", 8000)
    (pictures / "result_000_0.png").rename(pictures / "result_003_0.png")
    assert "result_003 has no label, there are 1" in problem()
    (pictures / "inference.json").write_text('{"status": "unfinished", "settings": {}}')
    assert "holds an unfinished generation of pictures; resume it first by running attentionhand.inference" in problem()


def test_pictures_are_matched_by_number_then_by_name_then_by_place():
    def indices(*stems: str, names: tuple[str, ...] = ()) -> list[int]:
        return evaluate.label_indices([Path(f"{stem}.png") for stem in stems], 3, names, Path("pictures"))

    assert indices("result_002_0", "result_000_1") == [2, 0]
    assert indices("b", "c", names=("c", "a", "b")) == [2, 0]
    assert indices("b", "b", names=("b", "b", "c")) == [0, 0]  # several texts for one mesh image
    assert indices("x", "y", "z", names=("c", "a", "b")) == [0, 1, 2]
