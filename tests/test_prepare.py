"""What attentionhand.prepare writes: files, filters, crops, texts; the same after a kill and with more workers."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import error_of, files_under
from label_fixtures import CAMERA, HEIGHT, WIDTH, overlap, true_hand, write_photo
from PIL import Image

from attentionhand import prepare
from attentionhand.data import read_modalities, views
from core.hands.rasterizer import Camera
from core.runs.photos import load_photo

COUNT = 10


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Ten own labels with a camera and photos, two hands in every second one; one photo is a JPEG."""
    folder = tmp_path_factory.mktemp("labels")
    joints, names = np.full((COUNT, 2, 21, 3), np.nan), []
    for row in range(COUNT):
        turn = (16 * row - 70, 10 * row - 40, 10)
        joints[row, 0] = true_hand("palm", "Right", (-0.03, 0.03, 0.4), turn).joints
        if row % 2:
            joints[row, 1] = true_hand("fist", "Left", (0.06, 0.03, 0.35), turn).joints
        names.append(f"photos/{row}.{'jpg' if row == 3 else 'png'}")
        write_photo(folder / names[-1])
    arrays = {"joints_3d": joints, "handedness": [["Right", "Left"]] * COUNT, "rgb": names, "axes": "opencv"}
    np.savez(folder / "joints.npz", focal=CAMERA.focal, princpt=CAMERA.center, **arrays)
    return folder


def run(root: Path, output: Path, *more, workers: int = 1) -> None:
    arguments = ["--labels", "joints", "--root", root, "--output_dir", output, "--num_workers", workers, *more]
    prepare.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> Path:
    """The data set of all labels, made by two workers."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(root, folder, workers=2)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock."""
    return {name: (folder / name).read_bytes() for name in files_under(folder) if not Path(name).name.startswith(".")}


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "joints.npz") as file:
        return dict(file)


def test_what_is_written(root, whole, capsys):
    samples = read_modalities(whole / "modalities.json")
    arrays = arrays_of(whole)
    assert len(samples) == COUNT and arrays["joints_2d"].shape == (COUNT, 2, 21, 2)
    for row, sample in enumerate(samples):
        mesh, photo = load_photo(sample.mesh), load_photo(sample.rgb)
        assert mesh.size == photo.size == (WIDTH, HEIGHT) == tuple(arrays["size"][row])
        assert sample.text == ("a photo of two hands" if row % 2 else "a photo of a hand")
        assert sample.box == tuple(arrays["bbox"][row])
        _, local = views(sample, 64)
        assert local.mesh.amax() > 0.9
    assert (whole / "rgb/00000003.jpg").read_bytes() == (root / "photos/3.jpg").read_bytes()
    assert str(arrays["axes"]) == "opencv" and arrays["drawn_from"][1].tolist() == ["joints", "joints"]
    sheet = load_photo(whole / "overlays.png")
    assert sheet.width == 6 * 256
    record = json.loads((whole / "prepare.json").read_text())
    assert record["status"] == "finished" and record["samples"] == COUNT
    assert record["hands_drawn_from"] == {"joints": 15}
    run(root, whole)
    assert "already finished" in capsys.readouterr().out
    assert not list((whole).glob("*.jsonl")) and not list((whole).glob(".*.jsonl"))


def test_killed_with_several_workers_and_with_one_it_is_the_same(root, whole, tmp_path, monkeypatch):
    append = prepare.append_journal

    def killed(journal, part):
        append(journal, part)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(prepare, "append_journal", killed)
        run(root, tmp_path / "killed")
    assert json.loads((tmp_path / "killed" / "prepare.json").read_text())["status"] == "unfinished"
    (tmp_path / "killed/mesh/00000009.png").write_bytes(b"half a picture")  # what a kill may leave beyond the journal
    drawn = []
    draw = prepare.draw
    monkeypatch.setattr(prepare, "draw", lambda label, options: drawn.append(label.source) or draw(label, options))
    run(root, tmp_path / "killed")
    assert drawn == [f"{row:08}" for row in range(prepare.LABELS_A_TASK, COUNT)]  # the first ones were kept
    assert contents(tmp_path / "killed") == contents(whole)


def test_crop_and_size(root, whole, tmp_path):
    """A window around the hands, resized with its photo; the joints lie where the new camera sees them."""
    run(root, tmp_path / "out", "--crop", "1.5", "--size", "120")
    before, after = arrays_of(whole), arrays_of(tmp_path / "out")
    for row in range(COUNT):
        mesh = np.asarray(load_photo(tmp_path / "out" / "mesh" / f"{row:08}.png"))
        suffix = "jpg" if row == 3 else "png"
        assert load_photo(tmp_path / "out" / "rgb" / f"{row:08}.{suffix}").size == mesh.shape[1::-1]
        assert max(mesh.shape) == 120
        camera = Camera(tuple(after["focal"][row]), tuple(after["princpt"][row]))
        there = ~np.isnan(after["joints_3d"][row]).any(axis=(1, 2))
        flat = camera.project(after["joints_3d"][row][there].astype(float))
        assert np.abs(flat - after["joints_2d"][row][there]).max() < 0.01
        # The window cut from the whole mesh image and resized is the drawn one.
        scale = after["focal"][row] / CAMERA.focal
        start = np.round(CAMERA.center - after["princpt"][row] / scale).astype(int)
        end = start + np.round(mesh.shape[1::-1] / scale).astype(int)
        cut = load_photo(whole / "mesh" / f"{row:08}.png").crop((*start, *end))
        cut = np.asarray(cut.resize(mesh.shape[1::-1], Image.Resampling.BILINEAR))
        assert overlap(cut[..., 1] > 70, mesh[..., 1] > 70) > 0.96
        low, high = before["bbox"][row][:2], before["bbox"][row][2:]
        assert (start <= low).all() and (end >= high - 1).all()


def test_new_texts(root, tmp_path, capsys):
    (tmp_path / "scenes.txt").write_text("a hand on a table\na hand in the snow\na hand at the beach\n")
    run(root, tmp_path / "each", "--texts", tmp_path / "scenes.txt")
    samples = read_modalities(tmp_path / "each" / "modalities.json", with_rgb=False)
    assert [sample.text for sample in samples] == ["a hand on a table", "a hand in the snow", "a hand at the beach"]
    assert not (tmp_path / "each" / "rgb").exists()  # the photos do not show these scenes
    (tmp_path / "many.txt").write_text("a hand\n" * (COUNT + 2))
    run(root, tmp_path / "many", "--texts", tmp_path / "many.txt")
    assert "texts without a sample: 2" in capsys.readouterr().out
    run(root, tmp_path / "every", "--texts", tmp_path / "scenes.txt", "--every", "--num", "4")
    samples = read_modalities(tmp_path / "every" / "modalities.json", with_rgb=False)
    assert len(samples) == 12 and len({sample.mesh for sample in samples}) == 4
    assert len({(sample.mesh, sample.text) for sample in samples}) == 12
    assert len(arrays_of(tmp_path / "every")["joints_2d"]) == 12


def test_filters(root, tmp_path, capsys):
    run(root, tmp_path / "num", "--num", "3")
    assert len(list((tmp_path / "num" / "mesh").iterdir())) == len(list((tmp_path / "num" / "text").iterdir())) == 3
    run(root, tmp_path / "two", "--two_hands")
    assert len(read_modalities(tmp_path / "two" / "modalities.json")) == COUNT // 2
    assert f"left out: {COUNT // 2} for not two hands" in capsys.readouterr().out
    arguments = ["--labels", "joints", "--root", root, "--output_dir", tmp_path / "none", "--min_hand", "1000"]
    message = error_of(prepare.main, [*arguments, "--num_workers", "1"], capsys)
    assert f"no sample is left: {COUNT} for a hand smaller than --min_hand" in message
    assert not any(not name.startswith(".") for name in files_under(tmp_path / "none"))


def test_bad_photos_are_counted_or_end_it(root, tmp_path, capsys):
    content = arrays_of(root)
    names = content["rgb"].astype("U90")
    names[:4] = [
        str(root / "nowhere.png"),
        str(tmp_path / "cut.png"),
        str(tmp_path / "large.png"),
        str(root / names[3]),
    ]
    names[4:] = [str(root / name) for name in names[4:]]
    (tmp_path / "cut.png").write_bytes((root / "photos/0.png").read_bytes()[:2000])
    write_photo(tmp_path / "large.png", (300, 300))
    np.savez(tmp_path / "joints.npz", **{**content, "rgb": names, "size": (WIDTH, HEIGHT)})
    run(tmp_path / "joints.npz", tmp_path / "out")
    said = capsys.readouterr().out
    for reason in ("no photo", "an unreadable photo", "a photo of another size than the label's"):
        assert f"1 for {reason}" in said
    assert len(read_modalities(tmp_path / "out" / "modalities.json")) == COUNT - 3
    arguments = ["--labels", "joints", "--root", tmp_path / "joints.npz", "--output_dir", tmp_path / "strict"]
    assert "nowhere.png" in error_of(prepare.main, [*arguments, "--strict", "--num_workers", "1"], capsys)


def test_folders_of_other_settings_and_bad_options(root, tmp_path, capsys):
    def message(output: str, *more) -> str:
        arguments = ["--labels", "joints", "--root", root, "--output_dir", tmp_path / output, "--num_workers", "1"]
        return error_of(prepare.main, [*arguments, *more], capsys)

    run(root, tmp_path / "out", "--num", "2")
    assert "of other settings (num was 2, is now 3)" in message("out", "--num", "3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert "thesis.txt" in message("full") and files_under(tmp_path / "full") == {"thesis.txt"}
    assert "--every needs --texts" in message("new", "--every")
    assert "no such file" in message("new", "--texts", tmp_path / "nowhere.txt")
    assert "argument --crop: 0.5 is not at least 1 and below 1000" in message("new", "--crop", "0.5")
    assert not (tmp_path / "new").exists()


def test_the_same_name_twice(root, tmp_path, capsys):
    content = arrays_of(root)
    np.savez(
        tmp_path / "joints.npz",
        **{**content, "rgb": [str(root / name) for name in content["rgb"]]},
        source=["a"] * COUNT,
    )
    arguments = ["--labels", "joints", "--root", tmp_path / "joints.npz", "--output_dir", tmp_path / "out"]
    assert "the same name" in error_of(prepare.main, [*arguments, "--num_workers", "1"], capsys)
