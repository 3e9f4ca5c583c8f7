"""Synthetic data sets: reproducible, whole, one writer at a time; sheets and samples of the hands."""

import json

import numpy as np
import pytest
from conftest import ROOT, error_of, files_under, pixels, start_script, wait_for

from core.runs.run import read_record
from synthetic_hands import attentionhand_samples, make_dataset, sheet

pytestmark = pytest.mark.usefixtures("one_thread")


def make(folder, *more) -> None:
    make_dataset.main(["--output_dir", str(folder), "--gestures", "call", "palm", "--num", "3", *map(str, more)])


def test_hand1000_layout(tmp_path, capsys):
    make(tmp_path / "one", "--num_test", 2, "--num_workers", 1)
    make(tmp_path / "two", "--num_test", 2, "--num_workers", 2)
    made = files_under(tmp_path / "one")
    assert made == files_under(tmp_path / "two") and len(made) == 2 * (3 + 2 + 4) + 2
    for name in made:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    names = (tmp_path / "one" / "call_test_synthetic_file_name.txt").read_text().splitlines()
    captions = (tmp_path / "one" / "call_test_synthetic.txt").read_text().splitlines()
    assert len(names) == len(captions) == 2 and captions[0].startswith("a ")
    picture = pixels(tmp_path / "one" / "call_test" / names[0])
    assert picture.shape == (64, 64, 3) and (picture != pixels(tmp_path / "one" / "call" / "call_00000.png")).any()
    make(tmp_path / "one", "--num_test", 2)
    assert "already finished" in capsys.readouterr().out


def test_attentionhand_layout(tmp_path):
    make(tmp_path / "data", "--layout", "attentionhand", "--num_workers", 1)
    lines = [json.loads(line) for line in (tmp_path / "data" / "modalities.json").read_text().splitlines()]
    labels = np.load(tmp_path / "data" / "joints.npz")
    assert len(lines) == 6 and labels["joints_3d"].shape == (6, 21, 3) and labels["joints_2d"].shape == (6, 21, 2)
    assert labels["gesture"].tolist() == ["call"] * 3 + ["palm"] * 3
    for number, line in enumerate(lines):
        mesh, rgb = (pixels(tmp_path / "data" / line[name]) for name in ("mesh", "rgb"))
        assert mesh.shape == rgb.shape == (64, 64, 3)
        assert (tmp_path / "data" / line["text"]).read_text().startswith("a ")
        assert line["bbox"] == labels["bbox"][number].tolist()
        rows, columns = (mesh.max(axis=-1) > 127).nonzero()
        left, top, right, bottom = line["bbox"]
        assert left - 1 <= columns.min() and columns.max() <= right and top - 1 <= rows.min() and rows.max() <= bottom


def test_mistakes(tmp_path, capsys):
    arguments = ["--output_dir", tmp_path / "data", "--num", 1, "--num_workers", 1, "--gestures"]
    message = error_of(make_dataset.main, [*arguments, "wave"], capsys)
    assert message.startswith("no gesture 'wave'; there are call, dislike, fist,")
    assert "a hand needs at least 32 pixels" in error_of(make_dataset.main, [*arguments, "call", "--size", 8], capsys)
    make_dataset.main(list(map(str, [*arguments, "call"])))
    message = error_of(make_dataset.main, [*arguments, "call", "--seed", 1], capsys)
    assert "data: holds a finished data set of other settings (seed was 0, is now 1)" in message
    (tmp_path / "data" / "dataset.json").unlink()
    message = error_of(make_dataset.main, [*arguments, "call"], capsys)
    assert "data: holds 'call' but no dataset.json, so it is not a data set; choose another --output_dir" in message


def test_two_at_once_into_one_folder(tmp_path, capsys):
    arguments = ["-m", "synthetic_hands.make_dataset", "--output_dir", tmp_path / "data", "--gestures", "call", "palm"]
    first = start_script(*arguments, "--num", 3, "--num_workers", 1)
    wait_for(lambda: (tmp_path / "data" / "dataset.json").is_file(), first)
    message = error_of(make_dataset.main, [*arguments[2:], "--num", 3, "--num_workers", 1], capsys)
    assert "data: another data set is in progress there; wait for it, or choose another --output_dir" in message
    assert first.wait(timeout=120) == 0
    make(tmp_path / "alone", "--num_workers", 1)
    made = files_under(tmp_path / "data")
    assert made == files_under(tmp_path / "alone")
    for name in made:
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_an_unfinished_data_set_is_drawn_again(tmp_path, monkeypatch, capsys):
    make(tmp_path / "whole", "--num_workers", 1)
    drawn = make_dataset.write_photo

    def stops(gesture, seed, path, look):
        if gesture == "palm":
            path.write_bytes(b"half a picture")
            raise KeyboardInterrupt
        return drawn(gesture, seed, path, look)

    monkeypatch.setattr(make_dataset, "write_photo", stops)
    with pytest.raises(SystemExit):
        make(tmp_path / "killed", "--num_workers", 1)
    assert read_record(tmp_path / "killed" / "dataset.json").status == "unfinished"
    other = ["--output_dir", tmp_path / "killed", "--gestures", "call"]
    message = error_of(make_dataset.main, other, capsys)
    assert "holds an unfinished data set of other settings (gestures was ['call', 'palm'], is now ['call']" in message
    monkeypatch.setattr(make_dataset, "write_photo", drawn)
    make(tmp_path / "killed", "--num_workers", 1)
    assert files_under(tmp_path / "killed") == files_under(tmp_path / "whole")
    for name in files_under(tmp_path / "whole"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_sheet_of_all_gestures(tmp_path):
    sheet.main(["--output", str(tmp_path / "sheet.png"), "--size", "32"])
    assert pixels(tmp_path / "sheet.png").shape == (3 * (24 + 2 * 32), 6 * 32, 3)


def test_samples_of_attentionhand(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(attentionhand_samples, "SIZE", 32)
    attentionhand_samples.main(["--output_dir", str(tmp_path / "samples")])
    ours = ROOT / "attentionhand" / "samples"
    assert files_under(tmp_path / "samples") == files_under(ours)
    assert (tmp_path / "samples" / "modalities.json").read_bytes() == (ours / "modalities.json").read_bytes()
    message = error_of(attentionhand_samples.main, ["--output_dir", tmp_path / "samples"], capsys)
    assert "samples: exists already; choose another --output_dir" in message
