"""Captioners and enrichment on AttentionHand's data: the texts of its photos, each with a hand word."""

import json
import shutil

import numpy as np
import pytest
from conftest import error_of

from attentionhand import prepare
from attentionhand.data import read_modalities
from attentionhand.hand_words import has_hand_word
from captioning import enrich, vitgpt2
from synthetic_hands import make_dataset


@pytest.fixture
def data_dir(tmp_path):
    """Six samples of AttentionHand's data, prepared from drawn hands."""
    options = ["--layout", "attentionhand", "--gestures", "palm", "call", "--num", "3", "--size", "64"]
    make_dataset.main(["--output_dir", str(tmp_path / "drawn"), *options, "--num_workers", "1"])
    arguments = ["--labels", "joints", "--root", str(tmp_path / "drawn"), "--output_dir", str(tmp_path / "data")]
    prepare.main([*arguments, "--min_hand", "8", "--num_workers", "1"])
    return tmp_path / "data"


def texts_of(data_dir) -> list[str]:
    return [sample.text for sample in read_modalities(data_dir / "modalities.json")]


def test_captions_become_texts_with_a_hand_word(data_dir, captioners, capsys, one_thread):
    assert set(texts_of(data_dir)) == {"a photo of a hand"}
    arguments = ["--data_dir", str(data_dir), "--model", str(captioners / "vitgpt2"), "--num_workers", "0"]
    vitgpt2.main(arguments)
    captions = (data_dir / "captions_VitGpt2.txt").read_text(encoding="utf-8").split("\n")[:-1]
    texts = texts_of(data_dir)
    assert len(captions) == len(texts) == 6 and all(map(has_hand_word, texts))
    for caption, text in zip(captions, texts):
        assert text == caption if has_hand_word(caption) else text != caption
    assert "6 texts" in capsys.readouterr().out
    vitgpt2.main(arguments)
    assert "already finished" in capsys.readouterr().out
    assert "--gesture" in error_of(vitgpt2.main, [*arguments, "--gesture", "call"], capsys)
    shutil.rmtree(data_dir / "mesh")
    assert "modalities.json" in error_of(vitgpt2.main, arguments, capsys)


def test_captions_without_a_hand_word_are_rewritten(data_dir, capsys):
    names = [f"{number:08}.png" for number in range(6)]
    captions = ["a man with a cup", "a hand on a table", "someone waving", "a red car", "two fingers", "a cup."]
    (data_dir / "captions_BLIP2_file_name.txt").write_text("\n".join(names) + "\n")
    (data_dir / "captions_BLIP2.txt").write_text("\n".join(captions) + "\n")
    arguments = ["--data_dir", str(data_dir), "--backend", "rule"]
    enrich.main(arguments)
    assert texts_of(data_dir) == [
        "a man with a cup with a hand in view",
        "a hand on a table",
        "someone waving",
        "a red car with a hand in view",
        "two fingers",
        "a cup with a hand in view.",
    ]
    said = capsys.readouterr().out
    assert "3 captions with 'with a hand in view'" in said and "Warning" not in said
    assert "caption the photos first" in error_of(enrich.main, [*arguments, "--captioner", "VitGpt2"], capsys)


def test_a_text_of_two_photos_is_refused(data_dir, capsys):
    lines = [json.loads(line) for line in (data_dir / "modalities.json").read_text().splitlines()]
    lines[1]["text"] = lines[0]["text"]
    (data_dir / "modalities.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data_dir / "captions_BLIP2_file_name.txt").write_text("".join(f"{number:08}.png\n" for number in range(6)))
    (data_dir / "captions_BLIP2.txt").write_text("".join(f"hand {number}\n" for number in np.arange(6)))
    message = error_of(enrich.main, ["--data_dir", data_dir, "--backend", "rule"], capsys)
    assert "is the text of two photos" in message
