"""Stage I: the gesture feature of drawn hands and, where they are at hand, of real photographs."""

import shutil

import numpy as np
import pytest
from conftest import ROOT, error_of, files_under, run_script
from PIL import Image

import cal_mean_feature
from core.hands.detection import find_hands
from synthetic_hands.drawn import write_photos

REAL_PHOTOS = ROOT.parent / "shared" / "data" / "sign-language-digits" / "5"


def stage_one(data_root, *more) -> np.ndarray:
    cal_mean_feature.main(["--gesture", "palm", "--data_root", str(data_root), *more])
    return np.load(data_root / "palm.npy")


def test_mean_over_the_first_hand_of_every_photo_whatever_the_workers(tmp_path, capfd):
    write_photos(tmp_path, "palm", 5)
    folder = tmp_path / "palm"
    (folder / "palm_000.png").rename(folder / "UPPER.PNG")
    Image.open(folder / "palm_001.png").save(folder / "other.WebP", "WEBP")
    Image.new("RGB", (64, 64)).save(folder / "black.jpeg")
    (folder / "notes.txt").write_text("not a photo")

    one, two = stage_one(tmp_path, "--num_workers", "1"), stage_one(tmp_path, "--num_workers", "2")
    assert (one == two).all()
    hands = [find_hands(Image.open(path))[0] for path in sorted(folder.iterdir()) if path.suffix in (".png", ".PNG")]
    hands += [find_hands(Image.open(folder / "other.WebP"))[0]]
    expected = [sum(hand.landmarks[i, axis] for hand in hands) / 6 for i in range(21) for axis in range(3)]
    assert one.shape == (63,) and np.allclose(one, expected, rtol=0, atol=1e-12)
    captured = capfd.readouterr()
    assert captured.out.count("mean of 6 hands; 1 of 7 photos had no hand") == 2
    for noise in ("XNNPACK", "W0000", "absl", "inference_feedback"):
        assert noise not in captured.err  # MediaPipe's C++ log


def test_exif_orientation_is_respected(tmp_path):
    write_photos(tmp_path, "palm", 1)
    upright = stage_one(tmp_path)
    photo = tmp_path / "palm" / "palm_000.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, to be turned clockwise for looking at
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    assert np.abs(stage_one(tmp_path) - upright).max() < 1e-9


def test_bad_photos_are_named_and_skipped_only_when_asked(tmp_path, capsys):
    write_photos(tmp_path, "palm", 4)
    truncated = tmp_path / "palm" / "palm_001.png"
    truncated.write_bytes(truncated.read_bytes()[:2000])
    arguments = ["--gesture", "palm", "--data_root", str(tmp_path)]
    before = files_under(tmp_path)
    for workers in ("1", "2"):
        message = error_of(cal_mean_feature.main, [*arguments, "--num_workers", workers], capsys)
        assert "palm_001.png: not a readable image" in message and "--skip_bad_images" in message
    assert files_under(tmp_path) == before
    cal_mean_feature.main([*arguments, "--skip_bad_images"])
    output = capsys.readouterr().out
    assert "skipped: " in output and "mean of 3 hands" in output


def test_mistakes(tmp_path, capsys):
    arguments = ["--gesture", "palm", "--data_root", tmp_path]
    assert "palm: no such folder" in error_of(cal_mean_feature.main, arguments, capsys)
    (tmp_path / "palm").mkdir()
    (tmp_path / "palm" / "a.gif").touch()
    assert "palm: holds no photos" in error_of(cal_mean_feature.main, arguments, capsys)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "palm" / "white.jpg")
    assert "found no hand in its 1 photo; are they upright?" in error_of(cal_mean_feature.main, arguments, capsys)
    assert not (tmp_path / "palm.npy").exists()


def test_help_is_a_manual():
    done = run_script("cal_mean_feature.py", "--help")
    assert done.returncode == 0 and "Example:" in done.stdout and "(default: .)" in done.stdout


@pytest.mark.skipif(not REAL_PHOTOS.is_dir(), reason=f"real photographs are not at {REAL_PHOTOS}")
def test_real_photographs(tmp_path, capfd):
    (tmp_path / "palm").mkdir()
    for photo in sorted(REAL_PHOTOS.iterdir())[:40]:
        shutil.copy(photo, tmp_path / "palm")
    feature = stage_one(tmp_path)
    assert "mean of 40 hands; 0 of 40" in capfd.readouterr().out  # measured with mediapipe 0.10.21
    landmarks = feature.reshape(21, 3)
    assert (landmarks[[8, 12, 16, 20], 1] < landmarks[0, 1] - 0.3).all()  # the digit 5: fingers up
