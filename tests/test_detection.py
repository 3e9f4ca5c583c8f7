"""Hands are MediaPipe 0.10.21's: golden hands of its `solutions`, and the live ones where it is installed."""

import functools
import os
import shutil
import subprocess
import sys

import golden_hands
import numpy as np
import pytest
from conftest import ROOT
from golden_hands import CONFIDENCES, FOLDER, MAX_NUM_HANDS, REAL, drawn_pictures
from PIL import Image

from core.hands import detection, hand_graph, litert
from core.hands.detection import Hand, find_hands, find_hands_at
from core.hands.hand_graph import Palms, find_palms, hand_region, hand_regions, merged_palms
from core.hands.regions import Region, cut_out
from core.runs.errors import UserError
from core.runs.photos import load_photo
from synthetic_hands.drawn import draw_open_hand

SETTINGS = [(max_num_hands, confidence) for max_num_hands in MAX_NUM_HANDS for confidence in CONFIDENCES]
# How far landmarks may be from MediaPipe's, as a share of the picture's longer side: LiteRT's kernels round otherwise
# than MediaPipe's, and otherwise on other processors. At confidence 0 some regions hold hardly a hand, and there a
# difference in the last bit grows. Measured on 1,674 photographs: median 0.00001, largest 0.0003 and 0.0041.
FARTHEST = {0.5: 0.001, 0.0: 0.01}
FARTHEST_MEDIAN = 0.00005  # over all hands at confidence 0.5
SCORE = {0.5: 0.002, 0.0: 0.01}


@pytest.fixture(autouse=True)
def default_backend(monkeypatch):
    monkeypatch.delenv("HAND_DETECTOR", raising=False)


@functools.cache
def golden(name: str) -> dict:
    """Golden hands of each picture and setting, in MediaPipe's order."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        rows = {key: stored[key] for key in stored}
    hands: dict = {(str(name), *setting): [] for name in rows["pictures"] for setting in SETTINGS}
    for row in range(len(rows["picture"])):
        name = str(rows["pictures"][rows["picture"][row]])
        handedness = "Left" if rows["is_left"][row] else "Right"
        hand = Hand(rows["landmarks"][row].astype(float), handedness, float(rows["score"][row]))
        hands[name, int(rows["max_num_hands"][row]), float(rows["confidence"][row])].append(hand)
    return hands


def farthest(hand: Hand, expected: Hand, size: tuple[int, int]) -> float:
    """The largest distance of two landmarks, as a share of the picture's longer side; depth counts like x."""
    width, height = size
    off = (hand.landmarks - expected.landmarks) * (width, height, width) / max(size)
    return float(np.linalg.norm(off, axis=1).max())


def assert_same_hands(pictures: dict[str, Image.Image], expected: dict) -> None:
    """Same count, order and handedness for every picture; landmarks and scores as close as LiteRT comes."""
    distances = []
    for name, picture in pictures.items():
        for max_num_hands in MAX_NUM_HANDS:
            for confidence, hands in zip(CONFIDENCES, find_hands_at(picture, CONFIDENCES, max_num_hands=max_num_hands)):
                case = (name, max_num_hands, confidence)
                assert [hand.handedness for hand in hands] == [hand.handedness for hand in expected[case]], case
                for hand, other in zip(hands, expected[case]):
                    distance = farthest(hand, other, picture.size)
                    distances += [distance] if confidence == 0.5 else []
                    assert distance < FARTHEST[confidence], case
                    assert abs(hand.score - other.score) < SCORE[confidence], case
    assert np.median(distances) < FARTHEST_MEDIAN


def test_drawn_hands_are_mediapipes():
    pictures = drawn_pictures()
    assert {name for name, _, _ in golden("drawn")} == set(pictures)
    assert_same_hands(pictures, golden("drawn"))


def test_positions_between_two_steps_are_rounded_as_opencv_does():
    """Where they are not, these landmarks are ten times as far from MediaPipe's."""
    pictures = {name: picture for name, picture in drawn_pictures().items() if name.startswith("half_steps")}
    assert len(pictures) == len(golden_hands.HALF_STEPS)
    assert_same_hands(pictures, golden("drawn"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real photographs are not at {REAL}")
def test_hands_of_real_photographs_are_mediapipes():
    names = {name for name, _, _ in golden("real")}
    assert_same_hands({name: Image.open(REAL / name) for name in names}, golden("real"))


def test_hands_are_those_of_the_installed_mediapipe(monkeypatch):
    pytest.importorskip("mediapipe", reason="mediapipe is not installed here; the golden hands stand in for it")
    rng = np.random.default_rng(5)
    pictures = {}
    for name, size in (("square", 192), ("odd", 233), ("large", 640)):
        pictures[name] = draw_open_hand(rng, size)[0]
    pictures["cut"] = pictures["large"].crop((90, 130, 521, 640))
    monkeypatch.setenv("HAND_DETECTOR", "mediapipe")
    expected = {
        (name, max_num_hands, confidence): find_hands(
            picture, max_num_hands=max_num_hands, min_detection_confidence=confidence
        )
        for name, picture in pictures.items()
        for max_num_hands, confidence in SETTINGS
    }
    assert sum(map(len, expected.values())) >= 12
    monkeypatch.setenv("HAND_DETECTOR", "litert")
    assert_same_hands(pictures, expected)


def test_two_hands_overlapping_hands_and_no_hand():
    """What golden hands can't show by their numbers: that they hold the cases which differ."""
    hands = golden("drawn")
    assert [len(hands[("two", *setting)]) for setting in SETTINGS] == [1, 1, 2, 2]
    one, other = hands["overlapping", 1, 0.5][0], hands["overlapping", 2, 0.5]
    assert len(other) == 1 and np.abs(one.landmarks - other[0].landmarks).max() > 0.1  # the less sure palm's hand stays
    assert not any(
        hands[(name, *setting)]
        for name in ("wall", "tiny", "one_pixel", "flat", "hardly_a_hand")
        for setting in SETTINGS
    )
    assert all(hands[name, 1, 0.5] for name in ("grey", "huge", "lying", "upside_down", "at_the_edge", "tall"))


def test_one_pass_serves_all_confidences(monkeypatch):
    """The hands of separate calls to the last bit; one run of the palm network, one of the other for each region."""
    runs = []
    run = litert.Model.__call__

    def counted(model, picture):
        runs.append(picture.shape[0])
        return run(model, picture)

    picture = drawn_pictures()["two"]
    confidences = (0.0, 0.5, 0.7, 0.5)
    separate = [find_hands(picture, max_num_hands=2, min_detection_confidence=value) for value in confidences]
    palms = find_palms(np.asarray(picture))
    regions = {region for value in confidences for region in hand_regions(palms, value, 2)}
    monkeypatch.setattr(litert.Model, "__call__", counted)
    together = find_hands_at(picture, confidences, max_num_hands=2)
    assert runs.count(hand_graph.PALM_SIZE) == 1
    assert runs.count(hand_graph.LANDMARK_SIZE) == len(runs) - 1 == len(regions) < sum(map(len, together))
    assert [len(hands) for hands in together] == [2, 2, 2, 2]
    for hands, others in zip(together, separate):
        for hand, other in zip(hands, others, strict=True):
            assert (hand.landmarks == other.landmarks).all() and hand[1:] == other[1:]


def test_a_picture_does_not_depend_on_the_ones_before_it():
    pictures = drawn_pictures()
    (alone,) = find_hands(pictures["left"])
    find_hands(pictures["right"])
    (again,) = find_hands(pictures["left"])
    assert (alone.landmarks == again.landmarks).all() and alone[1:] == again[1:]
    assert alone.landmarks.dtype == float and alone.landmarks.shape == (21, 3) and isinstance(alone.score, float)


def test_photos_that_are_stored_turned(tmp_path):
    picture = drawn_pictures()["left"]
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side, to be turned clockwise for looking at
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    (hand,), (upright,) = find_hands(load_photo(tmp_path / "photo.png")), find_hands(picture)
    assert (hand.landmarks == upright.landmarks).all()


# The graph's rules, one by one


def palm(x: float, y: float, side: float = 20) -> list[tuple[float, float]]:
    """An upright palm around (x, y) in pixels: box, wrist, middle finger's knuckle."""
    half = side / 2
    return [(x - half, y - half), (x + half, y + half), (x, y + half), (x, y - half)]


def palms(*candidates: tuple[list, float]) -> Palms:
    points, scores = zip(*candidates)
    return Palms(np.array(points, np.float32), np.array(scores, np.float32))


def test_candidates_for_one_palm_are_averaged_by_their_scores():
    found = palms((palm(50, 50), 0.25), (palm(54, 50), 0.75), (palm(200, 50), 0.5), (palm(300, 50), 0.1))
    assert [list(points[0]) for points in merged_palms(found, 0.0, 9)] == [[43, 40], [190, 40], [290, 40]]
    assert len(merged_palms(found, 0.0, 2)) == 2
    assert len(merged_palms(found, 0.5, 9)) == 2  # 0.5 itself counts
    # At confidence 0.5 the less sure candidate has no weight.
    assert list(merged_palms(found, 0.5, 1)[0][0]) == [44, 40]
    # An overlap of 1/3 is one palm, of 1/4 are two.
    assert len(merged_palms(palms((palm(50, 50), 0.9), (palm(60, 50), 0.8)), 0.0, 9)) == 1
    assert len(merged_palms(palms((palm(50, 50), 0.9), (palm(62, 50), 0.8)), 0.0, 9)) == 2


def test_equal_scores_keep_the_order_of_the_anchors():
    found = palms(*[(palm(100 * index, 50), 0.5 + 0.25 * (index % 2)) for index in range(40)])
    expected = [100 * index - 10 for index in [*range(1, 40, 2), *range(0, 40, 2)]]
    assert [points[0][0] for points in merged_palms(found, 0.0, 40)] == expected


def test_a_palm_without_area_ends_the_search():
    found = palms((palm(50, 50, side=0), 0.9), (palm(200, 50), 0.5))
    assert len(merged_palms(found, 0.0, 9)) == 1
    assert find_hands_at(Image.new("RGB", (8, 8)), [0.0])[0] == []
    assert hand_graph.find_hand(np.zeros((9, 9, 3), np.uint8), Region(4, 4, 0, 0)) is None


def test_candidates_of_negative_size_are_left_out(monkeypatch):
    raw, logits = np.zeros((2016, 18), np.float32), np.zeros((2016, 1), np.float32)
    raw[:, 2:4] = 10
    raw[5, 2] = -1
    logits[5], logits[6] = 9, 1000
    monkeypatch.setattr(hand_graph, "_model", {"palm_detection_full.tflite": lambda picture: [raw, logits]}.get)
    found = find_palms(np.zeros((10, 10, 3), np.uint8))
    assert len(found.scores) == len(found.points) == 2015 and list(found.scores[5:7]) == [1, 0.5]


def test_region_around_a_palm():
    region = hand_region(np.array(palm(50, 80)))
    assert np.allclose(region, (50, 70, 52, 0))  # 2.6 palms wide, moved half a palm to the fingers
    lying = hand_region(np.array([(40, 70), (60, 90), (40, 80), (60, 80)]))  # fingers point right
    assert np.allclose(lying, (60, 80, 52, np.pi / 2))
    wide = hand_region(np.array([(40, 70), (70, 90), (55, 90), (55, 70)]))
    assert np.allclose(wide, (55, 70, 78, 0))  # the longer side; moved by half the height
    tall = hand_region(np.array([(40, 60), (60, 90), (50, 90), (50, 60)]))
    assert np.allclose(tall, (50, 60, 78, 0))


def test_of_regions_that_overlap_the_less_sure_stays():
    near = palms((palm(50, 50), 0.9), (palm(64, 50), 0.8))
    assert [region.x_center for region in hand_regions(near, 0.5, 2)] == [64]
    assert [region.x_center for region in hand_regions(near, 0.5, 1)] == [50]
    apart = palms((palm(50, 50), 0.9), (palm(70, 50), 0.8))  # regions overlap by 0.44
    assert [region.x_center for region in hand_regions(apart, 0.5, 2)] == [50, 70]


def test_cutting_out_a_region():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    same = cut_out(image, Region(16, 20, 32, 0), 32, black_outside=False)
    assert (same == image[4:36, :32] * np.float32(1 / 255)).all()
    turned = cut_out(image, Region(30, 20, 32, np.pi / 2), 32, black_outside=False)  # up is the image's right
    assert np.abs(turned[1:, :] - np.rot90(image[4:36, 14:46])[:-1] / 255).max() < 1e-6
    black = cut_out(image, Region(0, 0, 32, 0), 32, black_outside=True)
    assert (black[:15] == 0).all() and (black[:, :15] == 0).all() and (black[16:, 16:] > 0).any()
    edge = cut_out(image, Region(0, 0, 32, 0), 32, black_outside=False)
    assert (edge[:16, 20] == image[0, 4] * np.float32(1 / 255)).all()
    # Half-way between two pixels, rounded up; at the edge, half of it is outside.
    two = np.array([[[10] * 3, [21] * 3]], np.uint8)
    between = cut_out(two, Region(1.5, 0.5, 2, 0), 2, black_outside=True)[1:, 0, 0] * 255
    assert np.allclose(cut_out(two, Region(1.5, 1, 2, 0), 2, black_outside=True)[:, :, 0] * 255, [[16, 11], [0, 0]])
    assert np.allclose(between, 8)


# Backends and mistakes


def test_start_up_is_quiet_and_small():
    """Worker processes start with it: neither MediaPipe nor torch are imported, and nothing is logged."""
    code = (
        "import sys; from PIL import Image; from core.hands.detection import find_hands;"
        f"print(len(find_hands(Image.open({str(FOLDER / 'left.png')!r}))));"
        "print([name for name in ('mediapipe', 'torch', 'scipy', 'cv2', 'jax') if name in sys.modules])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HAND_DETECTOR"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n[]\n", "")


def test_backend_that_is_unknown_or_not_installed(monkeypatch):
    picture = Image.new("RGB", (8, 8))
    monkeypatch.setenv("HAND_DETECTOR", "openpose")
    with pytest.raises(UserError, match="HAND_DETECTOR=openpose is unknown; known are litert, mediapipe"):
        find_hands(picture)
    for name, package in (("mediapipe", "mediapipe"), ("litert", "ai_edge_litert.interpreter")):
        monkeypatch.setenv("HAND_DETECTOR", name)
        for module in ("core.hands.mediapipe_solutions", "core.hands.hand_graph", "core.hands.litert"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, package, None)  # import raises ImportError
        with pytest.raises(UserError) as error:
            find_hands(picture)
        assert f"pip install {package.split('.')[0].replace('_', '-')}" in str(error.value)
        assert "\n" not in str(error.value)
    assert set(detection.MODULES) == set(detection.INSTALL)


def test_later_mediapipe_counts_as_not_installed(tmp_path, monkeypatch):
    """Releases from 0.10.30 have no `solutions`."""
    (tmp_path / "mediapipe.py").write_text("__version__ = '0.10.35'\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "core.hands.mediapipe_solutions", raising=False)
    monkeypatch.setenv("HAND_DETECTOR", "mediapipe")
    with pytest.raises(UserError, match="pip install mediapipe==0.10.21"):
        find_hands(Image.new("RGB", (8, 8)))


@pytest.mark.parametrize("name", litert.SHA256)
def test_damaged_and_missing_models(name, tmp_path, monkeypatch):
    shutil.copytree(litert.MODELS, tmp_path / "models")
    monkeypatch.setattr(litert, "MODELS", tmp_path / "models")
    monkeypatch.setattr(hand_graph, "_model", functools.cache(litert.Model))
    path, picture = tmp_path / "models" / name, drawn_pictures()["left"]
    assert len(find_hands(picture)) == 1
    content = bytearray(path.read_bytes())
    for damage in ("one byte", "cut off", "missing"):
        monkeypatch.setattr(hand_graph, "_model", functools.cache(litert.Model))
        if damage == "one byte":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif damage == "cut off":
            path.write_bytes(content[:1000])
        else:
            path.unlink()
        with pytest.raises(UserError) as error:
            find_hands(picture)
        assert str(error.value).startswith(str(path)) and "git checkout" in str(error.value)
        assert ("can't be read" if damage == "missing" else "damaged") in str(error.value)
        assert "\n" not in str(error.value)


def test_every_stored_picture_has_golden_hands():
    assert {path.stem for path in FOLDER.glob("*.png")} <= {name for name, _, _ in golden("drawn")}
    assert len(golden("real")) >= 4 * 36 and set(golden_hands.MAX_NUM_HANDS) == {1, 2}
