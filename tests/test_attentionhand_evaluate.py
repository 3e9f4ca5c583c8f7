"""Mesh images from labels, and whether generated hands follow their label."""

import json
import shutil
from pathlib import Path

import numpy as np
from conftest import error_of
from PIL import Image

from attentionhand import data, evaluate, known_labels, prepare
from attentionhand.label_errors import LabelledHand, hand_errors, hand_size, share_within
from core.hands.detection import Hand
from core.metrics.intervals import bootstrap_interval
from synthetic_hands import make_dataset
from synthetic_hands.sample import draw_sample


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


def labelled(joints_2d: np.ndarray, handedness: str = "", **more) -> LabelledHand:
    nothing = {"joints_3d": np.full((21, 3), np.nan), "focal": np.full(2, np.nan), "princpt": np.full(2, np.nan)}
    return LabelledHand(joints_2d=joints_2d, handedness=handedness, **{**nothing, **more})


def test_two_hands_of_a_label_are_matched_by_place_and_side():
    """MediaPipe names hands as in a mirror: the person's right hand is "Left"."""
    rng, size = np.random.default_rng(0), np.array([200, 100])
    places = rng.uniform(10, 40, (2, 21, 2)) + [[[0, 0]], [[100, 50]]]
    label = [labelled(places[0], "Right"), labelled(places[1], "Left")]

    def found(place: np.ndarray, side: str) -> Hand:
        return Hand(np.c_[place / size, np.zeros(21)], side, 0.9)

    both = [found(places[1], "Right"), found(places[0], "Left")]
    errors = hand_errors(both, label, size)
    assert all(np.allclose(hand.joints_2d, 0) and hand.is_found for hand in errors)
    first, second = hand_errors(both[:1], label, size)  # one hand can't stand for both
    assert not first.is_found and np.allclose(second.joints_2d, 0) and share_within(first.joints_2d, 0.2) == 0
    near = places[0] + 3
    sides = [found(near, "Right"), found(near + 1, "Left")]  # the second is a little farther, but of the right side
    assert np.allclose(hand_errors(sides, label[:1], size)[0].joints_2d, 4 * 2**0.5 / hand_size(places[0]))
    assert not hand_errors([], label, size)[0].is_found
    assert hand_errors(both, [], size) == []


def test_errors_in_3d_are_from_the_best_place_and_scale():
    """Seen along parallel rays, or through the label's camera where it is known."""
    rng, size = np.random.default_rng(1), np.array([640.0, 480.0])
    joints = rng.uniform(-0.09, 0.09, (21, 3)) + [0.05, -0.02, 0.4]
    flat = 3 * joints[:, :2]  # a picture along parallel rays, of any scale
    along = Hand(np.c_[flat / size, 3 * (joints[:, 2] - joints[0, 2]) / size[0]], "Left", 0.9)
    label = labelled(flat, joints_3d=joints)
    assert np.allclose(hand_errors([along], [label], size)[0].joints_3d, 0)
    turned = labelled(flat, joints_3d=joints * [1, 1, -1])
    assert hand_errors([along], [turned], size)[0].joints_3d.mean() > 0.2
    upside_down = labelled(flat, joints_3d=joints * [-1, -1, 1])  # no mirroring by a scale below 0 either
    assert hand_errors([along], [upside_down], size)[0].joints_3d.mean() > 0.2

    focal, princpt = np.array([500.0, 500]), np.array([320.0, 240])
    seen = joints[:, :2] / joints[:, 2:] * focal + princpt
    through = Hand(np.c_[seen / size, focal[0] * (joints[:, 2] / joints[0, 2] - 1) / size[0]], "Left", 0.9)
    with_camera = labelled(seen, joints_3d=joints, focal=focal, princpt=princpt)
    assert np.allclose(hand_errors([through], [with_camera], size)[0].joints_3d, 0)
    assert hand_errors([through], [labelled(seen, joints_3d=joints)], size)[0].joints_3d.mean() > 0.03
    assert np.isnan(hand_errors([through], [labelled(seen)], size)[0].joints_3d).all()


def test_evaluation_tells_the_right_label(tmp_path, extractor, captioners, capsys):
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
    right, other = (results[name]["scores"] for name in ("right", "other"))
    for metric, limit in (("landmark error 2D", 0.12), ("landmark error 3D", 0.15)):
        assert right[metric][2] < limit < other[metric][1], metric
    assert right["PCK@0.2"][0] > 0.8 > other["PCK@0.2"][0] and right["hand found"] == other["hand found"]
    assert list(right) == ["HAND-CONF", "hand found", "landmark error 2D", "landmark error 3D", "PCK@0.1", "PCK@0.2"]

    # With real photos and CLIP: the pictures are their own copies.
    compare = [*arguments, "--real_images", str(folder / "rgb"), "--feature_extractor", str(extractor)]
    compare += ["--real_features", str(tmp_path / "features"), "--clip_model", str(captioners / "clip")]
    assert "pictures.jsonl: no such file; --clip_model needs the texts" in error_of(evaluate.main, compare, capsys)
    entries = [{"file": f"result_{number:03d}_0.png", "label": number, "text": "a hand"} for number in range(12)]
    (tmp_path / "pictures" / "pictures.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    for _ in range(2):  # the second time with the features that the first has left
        evaluate.main([*compare, "--json", str(tmp_path / "all.json")])
        scores = json.loads((tmp_path / "all.json").read_text())["scores"]
        assert scores["FID"][0] < 1e-6 and scores["KID-H"][0] < 1e-6 and -1 <= scores["CLIP score"][0] <= 1
        assert (tmp_path / "features" / "real-H.npz").is_file()

    evaluate.main([*arguments, "--export", str(tmp_path / "accepted"), "--threshold", "0.1"])
    made = np.load(tmp_path / "accepted" / "joints.npz")
    count = len(list((tmp_path / "accepted" / "images").iterdir()))
    assert count == len(made["joints_3d"]) == len(made["image"]) > 6 and (made["error"] <= 0.1).all()
    assert "exists already" in error_of(evaluate.main, [*arguments, "--export", tmp_path / "accepted"], capsys)
    assert "no.npz: no such file; it holds the labels" in error_of(
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


def test_export_of_two_hands(tmp_path):
    """A picture is accepted where both hands are there; what it exports can be compared again."""
    (tmp_path / "pictures").mkdir()
    joints = np.full((3, 2, 21, 2), np.nan)
    for number in range(3):
        picture = Image.new("RGB", (256, 128), "grey")
        for place in range(2):
            hand = draw_sample("palm", [number, place], size=128)
            if number < 2 or place == 0:  # the last picture lacks a hand
                picture.paste(Image.fromarray(hand.rgb), (128 * place, 0))
            joints[number, place] = hand.joints_2d + [128 * place, 0]
        picture.save(tmp_path / "pictures" / f"{number}.png")
    np.savez(tmp_path / "joints.npz", joints_2d=joints, size=np.tile([256, 128], (3, 1)), unit="m")
    accepted = tmp_path / "accepted"
    arguments = ["--labels", str(tmp_path / "joints.npz"), "--image_folder", str(tmp_path / "pictures")]
    arguments += ["--num_workers", "1", "--threshold", "0.3", "--bootstrap", "100", "--json", str(tmp_path / "a.json")]
    evaluate.main([*arguments, "--export", str(accepted)])
    assert json.loads((tmp_path / "a.json").read_text())["scores"]["hand found"][0] == 5 / 6
    made = np.load(accepted / "joints.npz")
    assert made["joints_2d"].shape == (2, 2, 21, 2) and made["label"].tolist() == [0, 1]
    assert made["unit"] == "m"
    again = ["--labels", str(accepted / "joints.npz"), "--image_folder", str(accepted / "images"), *arguments[4:]]
    evaluate.main(again)
    assert json.loads((tmp_path / "a.json").read_text())["scores"]["hand found"][0] == 1


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
    np.savez(labels, joints_2d=joints, handedness=["right"])
    assert f"{labels}: handedness is 'right', not Left or Right" in problem()
    np.savez(labels, joints_2d=joints, name=["a", "b"])
    assert f"{labels}: name is (2,), but there are 1 labels" in problem()
    np.savez(labels, joints_2d=joints)
    assert "--shuffle needs at least two labels" in problem("--shuffle")
    assert "no hand fills an eighth of --image_size 8000" in problem("--image_size", 8000)
    (pictures / "result_000_0.png").rename(pictures / "result_003_0.png")
    assert "result_003 has no label, there are 1" in problem()
    (pictures / "inference.json").write_text('{"status": "unfinished", "settings": {}}')
    assert "holds an unfinished generation of pictures; resume it first by running attentionhand.inference" in problem()


def test_pictures_are_matched_by_number_then_by_name_then_by_place():
    def indices(*stems: str, names: tuple[str, ...] = ()) -> list[int]:
        return known_labels.label_indices([Path(f"{stem}.png") for stem in stems], 3, names, Path("pictures"))

    assert indices("result_002_0", "result_000_1") == [2, 0]
    assert indices("b", "c", names=("c", "a", "b")) == [2, 0]
    assert indices("b", "b", names=("b", "b", "c")) == [0, 0]  # several texts for one mesh image
    assert indices("x", "y", "z", names=("c", "a", "b")) == [0, 1, 2]
