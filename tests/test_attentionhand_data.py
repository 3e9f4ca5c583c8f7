"""AttentionHand's data: the four modalities, the global and the local view, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from attentionhand_helpers import SIZE
from conftest import ROOT
from PIL import Image

from attentionhand import data, hand_words
from core.runs.errors import UserError


def test_modalities(attention_samples, tmp_path, monkeypatch):
    listed = data.read_modalities(attention_samples / "modalities.json")
    assert len(listed) == 6 and all(sample.box and sample.text.startswith("a ") for sample in listed)
    whole, local = data.views(listed[0], 128)
    assert whole.mesh.shape == local.rgb.shape == (3, 128, 128)
    assert whole.mesh.min() == 0 and 0.5 < whole.mesh.max() <= 1 and -1 <= local.rgb.min() < local.rgb.max() <= 1
    assert (local.mesh > 0.3).float().mean() > (whole.mesh > 0.3).float().mean()

    monkeypatch.chdir(attention_samples)  # as released: relative to where one works
    (tmp_path / "m.json").write_text('{"mesh": "mesh/00000000.png", "text": "text/00000000.txt"}\n')
    assert data.read_modalities(tmp_path / "m.json", with_rgb=False)[0].rgb is None


@pytest.mark.parametrize("hands", [1, 2])
def test_the_box_is_the_released_one(hands):
    mesh = np.zeros((512, 512, 3), np.uint8)
    for centre in [(150, 200), (380, 330)][:hands]:
        cv2.ellipse(mesh, centre, (60, 90), 20, 0, 360, (200, 200, 200), -1)
    contours, _ = cv2.findContours((data.grey(mesh) > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [cv2.boundingRect(contour) for contour in contours]
    released = (
        min(x for x, _, _, _ in boxes),
        min(y for _, y, _, _ in boxes),
        max(x + w for x, _, w, _ in boxes),
        max(y + h for _, y, _, h in boxes),
    )
    assert len(boxes) == hands and data.hand_box(mesh) == released
    mesh[10, 500] = 255  # a speck is no hand
    assert data.hand_box(mesh) == released


def test_bad_data(attention_samples, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(attention_samples, folder)
    listing = folder / "modalities.json"
    good = listing.read_text().splitlines()

    def problem(line: str) -> str:
        listing.write_text(line + "\n")
        with pytest.raises(UserError) as error:
            for sample in data.read_modalities(listing):
                data.views(sample, SIZE)
        return str(error.value)

    record = json.loads(good[0])
    example = '{"mesh": "mesh/1.png", "rgb": "rgb/1.png", "text": "text/1.txt"}'
    assert problem("nonsense").endswith(f"line 1: not a JSON object; every line needs one, such as {example}")
    assert problem(json.dumps([record])).endswith(
        f"modalities.json: holds a JSON list; write one JSON object a line, without commas after it: {example}"
    )
    assert "holds a JSON list" in problem("[\n" + ",\n".join(good) + "\n]")
    assert "line 1: not a JSON object" in problem(json.dumps(record, indent=1))
    assert "line 1: has no 'rgb'; every line needs" in problem(
        json.dumps({"mesh": record["mesh"], "text": record["text"]})
    )
    assert problem(json.dumps({**record, "text": "a hand"})).endswith("(name a file whose first line is the text)")
    assert "is not a path inside the folder of the data" in problem(json.dumps({**record, "mesh": "../secret.png"}))
    assert "line 1: rgb: no file 'rgb/none.png' beside" in problem(json.dumps({**record, "rgb": "rgb/none.png"}))
    assert '"bbox" must be four numbers' in problem(json.dumps({**record, "bbox": [1, 2, 3]}))
    assert '"bbox" [70, 70, 90, 90] is empty or outside' in problem(json.dumps({**record, "bbox": [70, 70, 90, 90]}))
    (folder / "text" / "00000000.txt").write_text("\n")
    assert "00000000.txt: its first line is empty; it must be the picture's text" in problem(good[0])
    (folder / "text" / "00000000.txt").write_text("a hand\n")
    without_box = json.dumps({key: value for key, value in record.items() if key != "bbox"})
    Image.new("RGB", (SIZE, SIZE)).save(folder / "mesh" / "00000000.png")
    assert "00000000.png: shows no hand" in problem(without_box)
    dot = Image.new("RGB", (SIZE, SIZE))
    dot.putpixel((5, 5), (255, 255, 255))
    dot.save(folder / "mesh" / "00000000.png")
    assert "a single pixel's width" in problem(without_box)


def test_mesh_and_photo_of_different_sizes_are_both_resized(attention_samples, tmp_path):
    """As in the released code; the box is in pixels of the mesh image."""
    sample = data.read_modalities(attention_samples / "modalities.json")[0]
    large = Image.fromarray(data.load_picture(sample.mesh)).resize((3 * SIZE, 2 * SIZE), Image.Resampling.NEAREST)
    large.save(tmp_path / "mesh.png")
    box = tuple(np.array(sample.box) * (3, 2, 3, 2))
    for ours, other in zip(
        data.views(sample, SIZE), data.views(sample._replace(mesh=tmp_path / "mesh.png", box=box), SIZE)
    ):
        assert torch.equal(ours.rgb, other.rgb) and (ours.mesh - other.mesh).abs().mean() < 0.02


def test_specks_are_no_hands():
    """A spot of 3.4 % of the hand's area is left out, another hand of 6 % is not."""
    mesh = np.zeros((200, 200, 3), np.uint8)
    mesh[50:150, 50:150] = 255
    for area, box in ((340, (50, 50, 150, 150)), (625, (50, 5, 150, 150))):
        side = int(area**0.5)
        other = mesh.copy()
        other[5 : 5 + side, 60 : 60 + side] = 255
        assert data.hand_box(other) == box


def test_real_samples():
    folder = ROOT.parent / "shared" / "data" / "attentionhand-samples"
    if not folder.is_dir():
        pytest.skip("shared/data/attentionhand-samples is not beside the repository")
    for sample in data.read_modalities(folder / "modalities.json", with_rgb=False):
        whole, local = data.views(sample)
        assert whole.mesh.shape == (3, 512, 512) and (local.mesh > 0.5).float().mean() > 0.1


def test_shipped_samples_are_ready():
    listed = data.read_modalities(ROOT / "attentionhand" / "samples" / "modalities.json", with_rgb=False)
    assert len(listed) >= 3
    for sample in listed:
        data.views(sample)
        assert hand_words.has_hand_word(sample.text)


def test_batches_are_an_endless_shuffle(attention_samples):
    """The same after a kill, a part for each process, every sample once a pass."""
    listed = data.read_modalities(attention_samples / "modalities.json")

    def indices(own=slice(None), start=0, num_workers=0) -> list[list[int]]:
        batches = data.load_batches(
            listed, 32, batch_size=4, own=own, start=start, steps=6, seed=0, num_workers=num_workers
        )
        return [pair.index.tolist() for pair in batches]

    whole = indices()
    assert len(whole) == 6 and all(len(rows) == 4 for rows in whole)
    assert sorted(sum(whole, [])[:6]) == sorted(sum(whole, [])[6:12]) == list(range(6))
    assert indices(start=2) == whole[2:] and indices(start=6) == [] and indices(num_workers=1) == whole
    assert [a + b for a, b in zip(indices(slice(0, 2)), indices(slice(2, 4)))] == whole
    (pair, *_) = data.load_batches(listed, 32, batch_size=4, own=slice(None), start=0, steps=1, seed=0, num_workers=0)
    assert pair.global_view.mesh.shape == pair.local_view.rgb.shape == (4, 3, 32, 32)
