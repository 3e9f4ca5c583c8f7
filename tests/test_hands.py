"""Stage I and hand detection, on drawn hands and, where they are at hand, on real photographs."""

import shutil

import numpy as np
import pytest
from conftest import ROOT, error_of, files_under, run_script
from PIL import Image, ImageOps

import cal_mean_feature
from core.hands.crops import Hand, find_hands, hand_box, hand_crops, union_box
from core.runs.photos import load_photo
from synthetic_hands.drawn import draw_open_hand, write_photos

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


def test_landmarks_are_mediapipes_for_the_rgb_picture():
    """The released metrics swapped red and blue before detection."""
    import mediapipe

    image, _ = draw_open_hand(np.random.default_rng(1))
    (hand,) = find_hands(image)
    with mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=1) as detector:
        points = detector.process(np.asarray(image)).multi_hand_landmarks[0].landmark
    assert hand.landmarks.tolist() == [[point.x, point.y, point.z] for point in points]
    assert hand.handedness in ("Left", "Right") and 0.5 <= hand.score <= 1
    assert hand.landmarks[12, 1] < hand.landmarks[0, 1] - 0.25  # the middle finger's tip is above the wrist
    (mirrored,) = find_hands(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert np.abs(mirrored.landmarks[:, 0] - (1 - hand.landmarks[:, 0])).max() < 0.03


def test_exif_orientation_is_respected(tmp_path):
    write_photos(tmp_path, "palm", 1)
    upright = stage_one(tmp_path)
    photo = tmp_path / "palm" / "palm_000.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, to be turned clockwise for looking at
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    assert np.abs(stage_one(tmp_path) - upright).max() < 1e-9


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


def test_boxes_and_crops():
    landmarks = np.zeros((21, 3))
    landmarks[:, 0], landmarks[:, 1] = np.linspace(0.25, 0.5, 21), np.linspace(0.5, 1.2, 21)
    hand = Hand(landmarks, "Left", 0.9)
    assert hand_box(hand, (200, 100)) == (50, 50, 100, 100)  # cut off at the lower edge
    assert hand_box(Hand(landmarks + 2, "Left", 0.9), (200, 100)) is None
    assert union_box([(50, 50, 100, 100), (10, 60, 70, 80)]) == (10, 50, 100, 100)
    image, other = Image.new("RGB", (200, 100)), Hand(landmarks * 0.5, "Right", 0.8)
    assert [crop.size for crop in hand_crops(image, [hand, other])] == [(75, 75)]
    assert [crop.size for crop in hand_crops(image, [hand, other], union=False)] == [(50, 50), (25, 35)]
    assert hand_crops(image, []) == []


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
    assert "found no hand in any of its 1 photos" in error_of(cal_mean_feature.main, arguments, capsys)
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
