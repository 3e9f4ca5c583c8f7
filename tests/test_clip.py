"""dataset_evaluate.py: CLIP's similarities of captions and photos are those of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import error_of
from PIL import Image

import dataset_evaluate
from core.metrics.clip import image_text_similarity, text_text_similarity
from core.runs.photos import load_photo
from hand1000.gestures import PHRASES
from synthetic_hands import tiny_captioners

PHRASE = PHRASES["call"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """CLIP's real classes in miniature."""
    folder = tmp_path_factory.mktemp("models") / "clip"
    tiny_captioners.save_clip(folder)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eleven pictures in call/, whose names do not sort as they were written."""
    rng = np.random.default_rng(0)
    (tmp_path / "call").mkdir()
    for number in range(11):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60 + number, 50)).save(tmp_path / "call" / f"{number * 7 % 11}.png")
    return tmp_path


def test_similarities_are_means_of_cosines():
    rng = np.random.default_rng(0)
    images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 7, 5)))
    assert image_text_similarity(images, texts) == pytest.approx(np.trace(images @ texts.T) / 7)
    assert text_text_similarity(texts) == pytest.approx((texts @ texts.T).mean())


def test_dataset_evaluate_is_the_released_computation(photos, clip, tmp_path, capsys):
    from transformers import CLIPModel, CLIPProcessor

    names = sorted(path.name for path in (photos / "call").iterdir())
    captions = [f"a {colour} hand {PHRASE}" for colour in "red green blue grey pink dark light".split()]
    captions += ["a hand " + "and another hand " * 20, *captions[:3]]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    arguments = ["--image_folder", photos / "call", "--image_filenames_path", tmp_path / "names.txt"]
    arguments += ["--captions_path", tmp_path / "captions.txt", "--model", clip, "--num_workers", 0]
    arguments = [str(argument) for argument in [*arguments, "--batch_size", 4, "--json", tmp_path / "result.json"]]
    dataset_evaluate.main(arguments)

    model = CLIPModel.from_pretrained(clip).eval()
    processor = CLIPProcessor.from_pretrained(clip)
    images, texts = [], []
    for name, caption in zip(names, captions):
        inputs = processor(
            text=[caption], images=load_photo(photos / "call" / name), return_tensors="pt", truncation=True
        )
        with torch.no_grad():
            outputs = model(**inputs)
        images.append(outputs.image_embeds[0])
        texts.append(outputs.text_embeds[0])
    cosine = torch.nn.functional.cosine_similarity
    expected = np.mean([float(cosine(image, text, dim=0)) for image, text in zip(images, texts)])
    among = np.mean([float(cosine(a, b, dim=0)) for a in texts for b in texts])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["image_caption"] == pytest.approx(expected, abs=1e-5)
    assert result["caption_caption"] == pytest.approx(among, abs=1e-5)
    assert result["share_with_phrase"] == pytest.approx(10 / 11) and result["cut_off"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Similarity 1 (image-caption average similarity): {result['image_caption']:.6f}"
    assert lines[2] == f"Captions with '{PHRASE}': 90.9% of 11"
    dataset_evaluate.main([*arguments, "--limit", "5"])
    assert json.loads((tmp_path / "result.json").read_text())["captions"] == 5

    (tmp_path / "captions.json").write_text(
        json.dumps({"status": "finished", "settings": {"phrase": "another hand and another"}})
    )
    dataset_evaluate.main(arguments)
    assert "Captions with 'another hand and another': 9.1% of 11" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("\n".join([*names[:-1], "gone.png"]))
    assert "names.txt: line 11: no photo " in error_of(dataset_evaluate.main, arguments, capsys)
    (tmp_path / "names.txt").write_text("\n".join(names))
    message = error_of(dataset_evaluate.main, [*arguments, "--json", tmp_path / "captions.txt"], capsys)
    assert "captions.txt: is an input of this command" in message
