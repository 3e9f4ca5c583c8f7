"""Photos: how they are turned and decoded, and one pass over many in worker processes."""

import functools
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from core.runs.photos import load_photo, map_photos
from synthetic_hands.drawn import write_photos


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_as_pillow_turns_it(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "photo.png"))
    assert (np.asarray(load_photo(tmp_path / "photo.png")) == np.asarray(expected)).all()


def test_photos_of_sixteen_bits_keep_their_shades(tmp_path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "photo.png")
    assert np.asarray(load_photo(tmp_path / "photo.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_workers_stay_near_the_reader(tmp_path):
    """Results must not pile up: a folder of any size, the same memory."""
    write_photos(tmp_path, "palm", 1)
    photo, marks = next((tmp_path / "palm").iterdir()), tmp_path / "marks"
    marks.mkdir()
    results = map_photos(functools.partial(leave_mark, marks), [photo] * 400, num_workers=2)
    next(results)
    time.sleep(2)
    assert len(list(marks.iterdir())) < 100
    assert 1 + sum(1 for _ in results) == len(list(marks.iterdir())) == 400


def leave_mark(folder: Path, _) -> None:
    tempfile.mkstemp(dir=folder)
