"""dataset_evaluate.py: the released computation; and the whole chain from photos to it."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, error_of

import dataset_evaluate
import select_images
from captioning import enrich, vitgpt2
from core.runs.photos import load_photo
from hand1000.gestures import PHRASES

PHRASE = PHRASES["call"]
HAGRID = ROOT.parent / "shared" / "data" / "hagrid-gestures"


def test_dataset_evaluate_is_the_released_computation(photos, captioners, tmp_path, capsys):
    from transformers import CLIPModel, CLIPProcessor

    names = sorted(path.name for path in (photos / "call").iterdir())
    captions = [f"a {colour} hand {PHRASE}" for colour in "red green blue grey pink dark light".split()]
    captions += ["a hand " + "and another hand " * 20, *captions[:3]]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (tmp_path / "captions.txt").write_text("\n".join(captions))
    arguments = ["--image_folder", photos / "call", "--image_filenames_path", tmp_path / "names.txt"]
    arguments += ["--captions_path", tmp_path / "captions.txt", "--model", captioners / "clip", "--num_workers", 0]
    arguments = [str(argument) for argument in [*arguments, "--batch_size", 4, "--json", tmp_path / "result.json"]]
    dataset_evaluate.main(arguments)

    model = CLIPModel.from_pretrained(captioners / "clip").eval()
    processor = CLIPProcessor.from_pretrained(captioners / "clip")
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


@pytest.mark.skipif(not HAGRID.is_dir(), reason="needs the real photographs of ../shared/data")
def test_the_whole_chain_on_real_photographs(captioners, tmp_path, capsys):
    root = ["--data_root", str(tmp_path)]
    (tmp_path / "all").mkdir()
    for photo in HAGRID.glob("*.png"):
        shutil.copy(photo, tmp_path / "all")
    select_images.main(
        ["--source", str(tmp_path / "all"), "--gesture", "call", "--num", "14", "--num_test", "10", *root]
    )
    vitgpt2.main(["--gesture", "call", *root, "--model", str(captioners / "vitgpt2")])
    enrich.main(["--gesture", "call", *root, "--captioner", "VitGpt2", "--backend", "rule"])
    lists = [str(tmp_path / f"call_VitGpt2_{name}.txt") for name in ("file_name", "modified")]
    dataset_evaluate.main(
        ["--image_folder", str(tmp_path / "call"), "--image_filenames_path", lists[0], "--captions_path", lists[1]]
        + ["--model", str(captioners / "clip")]
    )
    assert f"Captions with '{PHRASE}': 100.0% of 14" in capsys.readouterr().out
