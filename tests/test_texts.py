"""How faithful pictures are to their captions: attributes in captions, the classifier's file, the score."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import error_of
from PIL import Image

import reproduce
from core.metrics.texts import attributes_kept, attributes_of, load_attribute_classifier
from core.runs.errors import UserError
from synthetic_hands import train_attributes, train_mini
from synthetic_hands.demo import MINI
from synthetic_hands.hand import POSES
from synthetic_hands.make_dataset import draw_all
from synthetic_hands.train_mini import draw

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
PHRASES = {"colour": [f"{name} square" for name in COLOURS], "frame": ["framed", ""]}


class ByColour(torch.nn.Module):
    """The strongest channel in the middle; a frame is a white corner."""

    def forward(self, pictures):
        pictures = pictures.float()
        middle = pictures[:, :, pictures.shape[2] // 2, pictures.shape[3] // 2]
        corner = pictures[:, :, 0, 0].mean(dim=1, keepdim=True)
        return torch.cat([middle, corner, 255 - corner], dim=1)


def save(path, phrases=PHRASES, module=None):
    extra = {} if phrases is None else {"attributes.json": json.dumps(phrases)}
    torch.jit.script(module or ByColour()).save(str(path), _extra_files=extra)
    return path


def test_attributes_are_named_by_whole_phrases():
    phrases = {"sleeve": ["red sleeve", "grey sleeve"], "wall": ["red wall", "grey wall"], "pattern": ["striped", ""]}
    assert attributes_of("a hand with a grey sleeve in front of a striped red wall", phrases) == [1, 0, 0]
    assert attributes_of("a hand, grey sleeves, pinstriped wall", phrases) == [None, None, 1]


def test_the_share_that_is_found(tmp_path):
    pictures, captions = [], []
    for number, (name, colour) in enumerate(COLOURS.items()):
        image = Image.new("RGB", (8, 8), colour)
        if number == 1:
            image.putpixel((0, 0), (255, 255, 255))
        pictures.append(tmp_path / f"{name}.png")
        image.save(pictures[-1])
        captions.append(f"a {name} square")  # the second has a frame that its caption does not name
    captions.append("something else")  # names no colour: only its frame counts, which it has not
    pictures.append(pictures[0])
    classifier = load_attribute_classifier(save(tmp_path / "c.pt"))
    assert classifier.chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    options = {"num_workers": 0, "resamples": 200, "seed": 0}
    score = attributes_kept(classifier, pictures, captions, **options)["attributes kept"]
    assert score.value == pytest.approx(6 / 7)
    assert 0.5 <= score.low < score.value < score.high <= 1


def test_files_that_are_no_classifier(tmp_path):
    class Writes(torch.nn.Module):
        def forward(self, pictures):
            torch.ops.aten.save(pictures, "/tmp/canary")
            return pictures.float().mean(dim=(2, 3))

    for name, path, message in [
        ("none", tmp_path / "none.pt", "no such file"),
        ("text", tmp_path / "text.pt", "not a TorchScript module"),
        ("plain", save(tmp_path / "plain.pt", phrases=None), "no phrases in attributes.json"),
        ("writing", save(tmp_path / "writing.pt", module=Writes()), "reads or writes files by itself"),
        ("wrong", save(tmp_path / "wrong.pt", phrases={"colour": "red"}), "no phrases in attributes.json"),
    ]:
        if name == "text":
            path.write_text("no module")
        with pytest.raises(UserError, match=message):
            load_attribute_classifier(path)
    classifier = load_attribute_classifier(save(tmp_path / "few.pt", phrases={"colour": ["red", "green"]}))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="gave 5 numbers for 2 classes"):
        attributes_kept(classifier, [tmp_path / "a.png"], ["red"], num_workers=0, resamples=100, seed=0)


def test_a_classifier_is_trained_once(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setattr(train_mini, "cpu_count", lambda: 1)  # worker processes begin slowly
    monkeypatch.setattr(train_attributes, "STEPS", 3)
    monkeypatch.setattr(train_attributes, "EPOCHS", 1)
    arguments = ["--output_dir", tmp_path / "run", "--num"]
    message = error_of(train_attributes.main, [*arguments, "1"], capsys)
    assert message == "--num 1: makes 18 pictures; at least 36 are needed" and not (tmp_path / "run").exists()
    arguments = [str(argument) for argument in [*arguments, "2"]]
    train_attributes.main(arguments)
    assert "pattern: " in capsys.readouterr().out
    assert (
        load_attribute_classifier(tmp_path / "run" / "attributes.pt").phrases.keys() == train_attributes.PHRASES.keys()
    )
    train_attributes.main(arguments)
    assert "attributes.pt: already finished" in capsys.readouterr().out
    monkeypatch.setattr(train_attributes, "EXTRACTOR", shutil.copy(train_attributes.EXTRACTOR, tmp_path / "other.pt"))
    message = error_of(train_attributes.main, arguments, capsys)
    assert "run: holds a finished training of other settings (extractor was " in message


def test_reproduce_checks_it_first(data_root, tiny_model, capsys):
    (data_root / "palm_test").mkdir()
    command = ["--gestures", "palm", "--data_root", data_root, "--output_dir", data_root / "out", "--captioner", "own"]
    command += ["--pretrained_model_name_or_path", tiny_model]
    wrong = save(data_root / "plain.pt", phrases=None)
    message = error_of(reproduce.main, [*command, "--attribute_classifier", wrong], capsys)
    assert message == f"{wrong}: no attribute classifier (it has no phrases in attributes.json)"
    assert not (data_root / "out").exists()


def test_the_miniatures_classifier_knows_drawn_hands(tmp_path):
    jobs = [(gesture, [5, 0]) for gesture in POSES]
    drawn, _, captions = zip(*draw_all(draw, jobs, 1))
    pictures = [tmp_path / f"{number:03}.png" for number in range(len(drawn))]
    for path, pixels in zip(pictures, drawn):
        Image.fromarray(pixels).save(path)
    classifier = load_attribute_classifier(MINI / "attributes.pt")
    options = {"num_workers": 0, "resamples": 100, "seed": 0}
    assert attributes_kept(classifier, pictures, captions, **options)["attributes kept"].value > 0.9
    wrong = list(np.roll(np.array(captions), 1))
    assert attributes_kept(classifier, pictures, wrong, **options)["attributes kept"].value < 0.5
