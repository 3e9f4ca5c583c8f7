"""FID, KID and hand confidence against slow, independent versions; their scripts, inputs and intervals."""

import csv
import functools
import json
import math
import tempfile
import time
from pathlib import Path
from urllib.error import URLError

import mediapipe
import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import ROOT, TWO_PROCESSES, error_of, run_script
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision import transforms
from torchvision.models import inception_v3

import cal_fid
import cal_kid
import hand_confidence
from core.metrics.distances import fid, kid
from core.runs.photos import list_photos, map_photos
from hand1000 import features, metrics
from synthetic_hands.drawn import draw_open_hand, write_photos
from synthetic_hands.feature_extractor import save_feature_extractor

DIGITS = ROOT.parent / "shared" / "data" / "sign-language-digits"


# The numbers


def released_fid(real: np.ndarray, fake: np.ndarray) -> float:
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    difference = real.mean(axis=0) - fake.mean(axis=0)
    return difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root).real


def kid_of_pairs(real: np.ndarray, fake: np.ndarray, *, biased: bool) -> float:
    def mean_kernel(xs, ys, same):
        values = [
            (sum(a * b for a, b in zip(x, y)) / len(x) + 1) ** 3
            for i, x in enumerate(xs)
            for j, y in enumerate(ys)
            if biased or not same or i != j
        ]
        return sum(values) / len(values)

    return mean_kernel(real, real, True) + mean_kernel(fake, fake, True) - 2 * mean_kernel(real, fake, False)


def two_samples(real_rows: int, fake_rows: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(2, size, size)) / np.sqrt(size)
    return rng.normal(size=(real_rows, size)) @ mix[0] + 0.3, rng.normal(size=(fake_rows, size)) @ mix[1]


@pytest.mark.parametrize("rows", [(300, 300), (300, 2000), (2000, 300)])
def test_fid_is_the_released_formula(rows):
    real, fake = two_samples(*rows, 64)
    assert fid(real, fake) == pytest.approx(released_fid(real, fake), rel=1e-6)
    assert fid(real.astype(np.float32), fake) == pytest.approx(fid(real, fake), rel=1e-6)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rows", [(20, 30), (30, 500), (500, 30), (2, 2)])
def test_fid_of_fewer_pictures_than_features_is_finite_and_right(rows):
    real, fake = two_samples(*rows, 64)
    covariances = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    # The root's trace from the eigenvalues of the product itself, which is not symmetric.
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + sum(map(np.trace, covariances))
    assert fid(real, fake) == pytest.approx(expected - 2 * np.sqrt(eigenvalues).sum(), rel=1e-6)


def test_kid_is_a_mean_over_all_pairs():
    real, fake = two_samples(12, 12, 5)
    assert kid(real, fake) == (pytest.approx(kid_of_pairs(real, fake, biased=True), rel=1e-9), 0)
    assert kid(real, fake, protocol="standard")[0] == pytest.approx(kid_of_pairs(real, fake, biased=False), rel=1e-9)


def test_kid_subsets_are_as_large_as_the_smaller_side():
    real, fake = two_samples(25, 12, 5)
    generator = torch.Generator().manual_seed(3)
    values = []
    for _ in range(100):
        x = real[torch.randperm(25, generator=generator)[:12].numpy()]
        y = fake[torch.randperm(12, generator=generator).numpy()]
        values.append(kid_of_pairs(x, y, biased=True))
    assert kid(real, fake, seed=3) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))
    assert kid(real, fake, seed=4) != kid(real, fake, seed=3)


def test_standard_is_torchmetrics_on_the_same_features():
    class Pass(torch.nn.Module):
        num_features = 16

        def forward(self, x):
            return x[:, :, 0, 0]

    real, fake = (side.astype(np.float32) for side in two_samples(1500, 1200, 16))
    theirs = FrechetInceptionDistance(Pass()), KernelInceptionDistance(Pass())
    for metric in theirs:
        metric.update(torch.from_numpy(real)[:, :, None, None], real=True)
        metric.update(torch.from_numpy(fake)[:, :, None, None], real=False)
    assert fid(real, fake, protocol="standard") == pytest.approx(float(theirs[0].compute()), rel=1e-4)
    torch.manual_seed(5)
    mean, std = theirs[1].compute()
    ours = kid(real, fake, protocol="standard", seed=5)
    assert ours == (pytest.approx(float(mean), rel=1e-4), pytest.approx(float(std), rel=1e-2))


@pytest.mark.parametrize(
    "size, rows, shift, widest",
    [(4, (120, 150), 0.5, 1.3), (4, (300, 60), 0.5, 1.3), (4, (120, 120), 0.0, 2), (60, (40, 40), 0.05, 2.4)],
)
@pytest.mark.parametrize("name", ["fid", "kid"])
def test_intervals_hold_what_other_samples_give(name, size, rows, shift, widest):
    """As wide as the scatter of other samples where the sides differ, somewhat wider where they hardly do."""

    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(rows[0], size)), 1.1 * rng.normal(size=(rows[1], size)) + shift
        if name == "fid":
            return fid(real, fake), metrics.fid_interval(real, fake, resamples=100)
        value = kid(real, fake, protocol="standard")[0]
        return value, metrics.kid_interval(real, fake, value, protocol="standard", resamples=100)

    check_intervals([estimate_and_interval(seed) for seed in range(40)], widest)


def test_kid_interval_from_small_subsets(monkeypatch):
    """Of many pictures a subset is a small share; the interval is that of all of them."""
    monkeypatch.setattr(metrics, "KID_SUBSET_SIZE", 60)

    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        real, fake = rng.normal(size=(300, 4)), 1.2 * rng.normal(size=(300, 4)) + 0.5
        value = metrics.polynomial_mmd(real, fake, unbiased=True)
        return value, metrics.kid_interval(real, fake, value, protocol="standard", resamples=200)

    check_intervals([estimate_and_interval(seed) for seed in range(40)], widest=1.35)


def test_hand_confidence_interval():
    def estimate_and_interval(seed):
        rng = np.random.default_rng(seed)
        scores = [rng.normal(0.8, 0.05) + rng.normal(0, 0.02, rng.integers(0, 3)) for _ in range(80)]
        return metrics.hand_confidence(scores)[0], metrics.hand_confidence_interval(scores, resamples=150)

    check_intervals([estimate_and_interval(seed) for seed in range(60)], widest=1.25)


def check_intervals(results, widest: float) -> None:
    """Most intervals hold the mean over samples, and they are about as wide as the samples scatter."""
    values = np.array([value for value, _ in results])
    lows, highs = np.array([interval for _, interval in results]).T
    assert ((lows <= values.mean()) & (values.mean() <= highs)).mean() >= 0.85
    assert ((lows <= values) & (values <= highs)).all()
    assert 0.8 < (highs - lows).mean() / (2 * 1.96 * values.std()) < widest


def test_hand_confidence_and_its_error():
    scores = [[0.9], [], [0.8], [0.99]]
    mean, error = metrics.hand_confidence(scores)
    assert mean == pytest.approx(np.mean([0.9, 0.8, 0.99]))
    assert error == pytest.approx(np.std([0.9, 0.8, 0.99], ddof=1) / np.sqrt(3))
    # Two hands with the same score in each picture say no more than one.
    assert metrics.hand_confidence([2 * picture for picture in scores])[1] == pytest.approx(error)
    assert math.isnan(metrics.hand_confidence([[0.9]])[1])


# Pictures to features


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory) -> dict[str, Path]:
    """Local weight files of both protocols with random values."""
    folder = tmp_path_factory.mktemp("inception")

    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            pass

    torch.manual_seed(0)
    files = {"released": folder / "torchvision.pth", "standard": folder / "tensorflow.pth"}
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), files["released"])
    torch.save({}, files["standard"])
    torch.save(Blank("any", ["2048"], str(files["standard"])).state_dict(), files["standard"])
    return files


@pytest.fixture(scope="module")
def extractor(tmp_path_factory) -> Path:
    return save_feature_extractor(tmp_path_factory.mktemp("extractor") / "hog.pt")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Pictures of drawn hands: five each, of several sizes; one of the second folder has no hand, one has two."""
    root = tmp_path_factory.mktemp("pictures")
    for index, name in enumerate(("real", "fake")):
        (root / name).mkdir()
        rng = np.random.default_rng(index)
        for number, (width, height) in enumerate([(200, 200), (260, 200), (200, 240), (200, 200), (256, 256)]):
            hand, _ = draw_open_hand(rng)
            hand.resize((width, height)).save(root / name / f"{number}.png")
    rng = np.random.default_rng(9)
    two = Image.new("RGB", (512, 512), "grey")
    two.paste(draw_open_hand(rng)[0], (0, 0))
    two.paste(draw_open_hand(rng)[0], (256, 256))
    two.save(root / "fake" / "1.png")
    Image.new("RGB", (200, 180), "green").save(root / "fake" / "3.png")
    return root / "real", root / "fake"


def test_released_protocol_is_the_released_network_and_preparation(folders, inception_weights):
    network = inception_v3(weights=None, transform_input=True, init_weights=False)
    network.load_state_dict(torch.load(inception_weights["released"]))
    network.fc = torch.nn.Identity()
    prepare = transforms.Compose(
        [transforms.Resize(299), transforms.CenterCrop(299), transforms.ToTensor()]
        + [transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    with torch.no_grad():
        expected = [network.eval()(prepare(Image.open(path))[None])[0].numpy() for path in list_photos(folders[1])]
    real, fake = features.features_of_both(*folders, inception_weights=inception_weights["released"], batch_size=3)
    assert fake.features.shape == (5, 2048) and np.std(expected, axis=0).mean() > 0
    scale = np.std(expected, axis=0).max()
    assert np.abs(fake.features - expected).max() < 1e-3 * scale
    assert (real.images, real.without_hand, real.crop) == (5, 0, "whole")


def test_standard_protocol_is_torchmetrics(folders, inception_weights):
    weights = inception_weights["standard"]
    network = FrechetInceptionDistance(feature_extractor_weights_path=str(weights)).inception
    theirs = KernelInceptionDistance(network, subset_size=5, subsets=1)
    for folder, is_real in zip(folders, (True, False)):
        for path in list_photos(folder):
            picture = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
            theirs.update(picture, real=is_real)
    real, fake = features.features_of_both(*folders, protocol="standard", inception_weights=weights)
    scale = torch.cat(theirs.fake_features).std(dim=0).max()
    for ours, their_side in ((real, theirs.real_features), (fake, theirs.fake_features)):
        assert np.abs(ours.features - torch.cat(their_side).numpy()).max() < 1e-3 * scale
    mean = kid(*folders, protocol="standard", inception_weights=weights)[0]
    assert mean == pytest.approx(float(theirs.compute()[0]), rel=1e-3, abs=1e-6)


def test_hand_crops_are_the_released_ones_in_true_colours(folders, extractor):
    def released_boxes(picture):
        """Corners of the box of each hand, by a loop over the landmarks."""
        height, width, _ = picture.shape
        with mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=2) as detector:
            hands = detector.process(picture).multi_hand_landmarks or []
        for hand in hands:
            xs, ys = [point.x for point in hand.landmark], [point.y for point in hand.landmark]
            left, top = max(0, int(min(xs) * width)), max(0, int(min(ys) * height))
            yield left, top, min(width, int(max(xs) * width)), min(height, int(max(ys) * height))

    union, each = [], []
    for path in list_photos(folders[1]):
        picture = Image.open(path).convert("RGB")
        boxes = list(released_boxes(np.asarray(picture)))
        for left, top, right, bottom in boxes:
            each.append(picture.crop((left, top, right, bottom)).resize((299, 299), Image.Resampling.BILINEAR))
        if boxes:
            lefts, tops, rights, bottoms = zip(*boxes)
            crop = picture.crop((min(lefts), min(tops), max(rights), max(bottoms)))
            union.append(transforms.CenterCrop(299)(transforms.Resize(299)(crop)))
    assert (len(union), len(each)) == (4, 5)
    network = torch.jit.load(extractor)
    for crop, pictures in (("union", union), ("each", each)):
        side = features.features_of_both(*folders, hands=True, hand_crop=crop, feature_extractor=extractor)[1]
        expected = network(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        assert np.abs(side.features - expected.numpy()).max() < 1e-5
        assert (side.images, side.without_hand, side.crop) == (5, 1, crop)


def test_the_same_features_whatever_the_workers_and_processes(folders, extractor, tmp_path):
    arguments = [
        "cal_kid.py",
        "--real_images",
        folders[0],
        "--fake_images",
        folders[1],
        "--feature_extractor",
        extractor,
    ]
    arguments += ["--hands", "--batch_size", "2", "--save_features"]
    outputs = []
    for number, (launcher, workers) in enumerate([((), 0), ((), 2), (TWO_PROCESSES, 1)]):
        saved = [tmp_path / f"{number}{side}.npz" for side in ("real", "fake")]
        options = {"launcher": launcher} if launcher else {}
        done = run_script(*arguments, *saved, "--num_workers", workers, **options)
        assert done.returncode == 0, done.stderr
        outputs.append((done.stdout, [features.load_features(path) for path in saved]))
    for stdout, sides in outputs[1:]:
        assert stdout == outputs[0][0]  # the second process is silent
        for side, first in zip(sides, outputs[0][1]):
            assert (side.features == first.features).all() and side[1:] == first[1:]


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


# The scripts


def arguments_for(folders, extractor, *more) -> list[str]:
    values = ["--real_images", folders[0], "--fake_images", folders[1], "--feature_extractor", extractor]
    return [str(value) for value in (*values, "--num_workers", 0, *more)]


def test_cal_fid_and_cal_kid(folders, extractor, tmp_path, capsys):
    result, saved = tmp_path / "result.json", [str(tmp_path / "real.npz"), str(tmp_path / "fake.npz")]
    cal_fid.main(arguments_for(folders, extractor, "--hands", "--json", result, "--save_features", *saved))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Protocol: released, TorchScript ") and lines[0].endswith(", 144 features")
    assert lines[1] == f"Real: {folders[0]}: 5 images, 0 without a hand, 5 hand crops"
    assert lines[2] == f"Fake: {folders[1]}: 5 images, 1 without a hand, 4 hand crops"
    assert lines[3] == "Warning: FID is biased upwards with fewer than 2048 pictures (here 4)"
    value = fid(*folders, hands=True, feature_extractor=extractor)
    assert lines[4:] == [f"FID-H: {value:.6g}"]
    written = json.loads(result.read_text())
    assert written["value"] == pytest.approx(value) and written["metric"] == "FID-H" and written["crop"] == "union"
    assert written["fake"] == {"source": str(folders[1]), "images": 5, "without_hand": 1, "pictures": 4}

    # Saved features: the other metric, without the pictures and without the extractor.
    cal_kid.main(["--real_images", saved[0], "--fake_images", saved[1], "--hands", "--json", str(result)])
    mean, std = kid(*folders, hands=True, feature_extractor=extractor)
    assert capsys.readouterr().out.splitlines()[-1] == f"KID-H mean: {mean:.6g}, KID-H std: {std:.6g}"
    assert json.loads(result.read_text())["std"] == std > 0
    cal_fid.main(arguments_for((saved[0], folders[1]), extractor, "--hands"))
    assert capsys.readouterr().out.splitlines()[-1] == f"FID-H: {value:.6g}"


def test_bootstrap_prints_and_writes_an_interval(folders, extractor, tmp_path, capsys):
    result, sides = tmp_path / "result.json", [tmp_path / "real.npz", tmp_path / "fake.npz"]
    side = features.features_of_both(*folders, feature_extractor=extractor)[0]
    for path, sample in zip(sides, two_samples(60, 50, 20)):
        features.save_features(path, side._replace(features=sample))
    arguments = [*("--real_images", sides[0], "--fake_images", sides[1]), "--bootstrap", "100", "--json", result]
    for script in (cal_fid, cal_kid):
        script.main(list(map(str, arguments)))
        low, high = map(float, capsys.readouterr().out.splitlines()[-1].removeprefix("95 % interval: ").split(" to "))
        written = json.loads(result.read_text())
        assert low < written["value"] < high and written["interval_95"] == pytest.approx([low, high], rel=1e-4)
    features.save_features(sides[0], side)
    features.save_features(sides[1], side)
    message = error_of(cal_fid.main, arguments, capsys)
    assert message == "an interval needs at least 10 pictures a side, not 5"
    with pytest.raises(SystemExit):
        cal_fid.main(["--real_images", "a", "--fake_images", "b", "--bootstrap", "10"])
    assert "10 is too few for a 95 % interval: 100 at least" in capsys.readouterr().err


def test_hand_confidence_script(folders, tmp_path, capsys):
    table, result = tmp_path / "hands.csv", tmp_path / "hands.json"
    outputs = ["--bootstrap", "100", "--csv", str(table), "--json", str(result)]
    hand_confidence.main(["--image_folder", str(folders[1]), "--num_workers", "2", *outputs])
    scores, rows = [], list(csv.DictReader(table.open()))
    for path, row in zip(list_photos(folders[1]), rows, strict=True):
        picture = np.asarray(Image.open(path).convert("RGB"))
        with mediapipe.solutions.hands.Hands(True, 2, min_detection_confidence=0.0) as detector:
            found = detector.process(picture).multi_handedness or []
        scores += [hand.classification[0].score for hand in found]
        assert (row["image"], int(row["hands"])) == (path.name, len(found))
    assert [int(row["hands_at_0.5"]) for row in rows] == [1, 2, 1, 0, 1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folders[1]}: 5 images, {len(scores)} hands, 80.0% of images with a hand at confidence 0.5"
    assert lines[1].startswith(f"HAND-CONF: {np.mean(scores):.6f}, standard error: 0.0")
    written = json.loads(result.read_text())
    assert written["value"] == pytest.approx(np.mean(scores)) and written["share_with_hand"] == 0.8
    assert written["interval_95"][0] <= written["value"] <= written["interval_95"][1]


@pytest.mark.skipif(not DIGITS.is_dir(), reason="needs the real photographs of ../shared/data")
def test_one_sign_is_closer_to_itself_than_to_another(extractor, tmp_path):
    halves = {}
    for digit in ("2", "5"):
        photos = list_photos(DIGITS / digit)
        for half in (0, 1):
            folder = tmp_path / f"{digit}_{half}"
            folder.mkdir()
            for photo in photos[half::4]:
                (folder / photo.name).symlink_to(photo.resolve())
            halves[digit, half] = folder
    options = {"hands": True, "feature_extractor": extractor}
    for metric in (fid, lambda *folders, **options: kid(*folders, protocol="standard", **options)[0]):
        same = max(metric(halves[digit, 0], halves[digit, 1], **options) for digit in "25")
        assert metric(halves["2", 0], halves["5", 0], **options) > 3 * same


# Mistakes


def test_bad_folders_and_pictures(folders, extractor, tmp_path, capsys):
    def error(real, fake, *more):
        return error_of(cal_fid.main, arguments_for((real, fake), extractor, *more), capsys)

    assert "nowhere: no such folder" in error(tmp_path / "nowhere", folders[1])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: holds no photos" in error(folders[0], empty)
    (empty / "a.png").write_bytes(b"not a picture")
    assert "a.png: not a readable image" in error(folders[0], empty)
    Image.new("RGB", (64, 64)).save(empty / "a.png")
    assert "empty: MediaPipe found no hand in any of its 1 pictures" in error(folders[0], empty, "--hands")
    assert "empty: 1 picture; a distribution needs at least 2" in error(folders[0], empty)
    with pytest.raises(metrics.UserError, match="no hand"):
        metrics.hand_confidence([[], []])
    message = error_of(hand_confidence.main, ["--image_folder", empty], capsys)
    assert "empty: MediaPipe found no hand in any of its 1 pictures" in message
    done = run_script("cal_fid.py", *arguments_for((folders[0], empty), extractor, "--hands"), launcher=TWO_PROCESSES)
    assert done.returncode != 0 and done.stderr.count("cal_fid.py: error: ") == 1


def test_bad_features(folders, extractor, tmp_path, capsys):
    saved = tmp_path / "real.npz"
    side = features.features_of_both(*folders, feature_extractor=extractor)[0]

    def error(changes, *more):
        features.save_features(saved, side._replace(**changes))
        return error_of(cal_kid.main, arguments_for((saved, folders[1]), extractor, *more), capsys)

    assert "real.npz: its features were made with protocol 'standard', not 'released'" in error(
        {"protocol": "standard"}
    )
    assert "real.npz: its features were made with crop 'whole', not 'each'" in error(
        {}, "--hands", "--hand_crop", "each"
    )
    assert "made with extractor 'other', not 'TorchScript" in error({"extractor": "other"})
    assert "real.npz has 7 features a picture" in error({"features": side.features[:, :7]})
    spoilt = side.features.copy()
    spoilt[2, 5] = np.nan
    assert "real.npz: NaN or infinity in 1 rows of features, the first is row 2" in error({"features": spoilt})
    saved.write_bytes(b"")
    message = error_of(cal_kid.main, arguments_for((saved, saved), extractor), capsys)
    assert "real.npz: not a file of features; --save_features writes one" in message
    saved.unlink()
    assert "real.npz: no such file" in error_of(cal_kid.main, arguments_for((saved, saved), extractor), capsys)
    features.save_features(saved, side)
    message = error_of(cal_kid.main, ["--real_images", saved, "--fake_images", folders[1]], capsys)
    assert "real.npz: its features come from a module of your own; pass it as --feature_extractor" in message
    message = error_of(
        cal_kid.main, arguments_for(folders, extractor, "--json", saved, "--save_features", saved), capsys
    )
    assert "real.npz: two outputs can't go to the same file" in message
    with pytest.raises(metrics.UserError, match="real has 3 features a picture, fake has 4"):
        fid(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(metrics.UserError, match="no protocol 'standrad'"):
        kid(np.zeros((5, 3)), np.zeros((5, 3)), protocol="standrad")
    with pytest.raises(TypeError, match="no options"):
        fid(np.zeros((5, 3)), np.zeros((5, 3)), hands=True)


def test_bad_extractors(folders, inception_weights, tmp_path, capsys):
    bad = tmp_path / "bad.pt"
    assert "bad.pt: no such file" in error_of(cal_fid.main, arguments_for(folders, bad), capsys)
    bad.write_bytes(b"no module")
    assert "bad.pt: not a TorchScript module" in error_of(cal_fid.main, arguments_for(folders, bad), capsys)
    torch.jit.trace(torch.nn.Flatten(0), torch.zeros(2, 3, 299, 299, dtype=torch.uint8)).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(folders, bad), capsys)
    assert "the extractor gave (1341015,) for uint8 pictures of shape (5, 3, 299, 299), not (N, D)" in message
    torch.jit.script(Picky()).save(str(bad))
    assert "the extractor failed on uint8 pictures of shape (5, 3, 299, 299)" in error_of(
        cal_fid.main, arguments_for(folders, bad), capsys
    )
    torch.jit.script(torch.nn.Flatten(1)).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(folders, bad, "--protocol", "standard"), capsys)
    assert "the extractor gives from 120000 to 196608 features, by the size of the picture" in message
    done = run_script("cal_fid.py", *arguments_for(folders, bad, "--protocol", "standard"), launcher=TWO_PROCESSES)
    assert done.returncode != 0 and done.stderr.count("cal_fid.py: error: the extractor gives from") == 1
    arguments = arguments_for(folders, bad, "--inception_weights", inception_weights["released"])
    assert "leave out --inception_weights" in error_of(cal_fid.main, arguments, capsys)
    arguments = ["--real_images", folders[0], "--fake_images", folders[1], "--inception_weights"]
    swapped = [*arguments, inception_weights["standard"]]
    assert "tensorflow.pth: not the torchvision Inception v3 weights; get https://" in error_of(
        cal_fid.main, swapped, capsys
    )
    swapped = [*arguments, inception_weights["released"], "--protocol", "standard"]
    assert "not the TensorFlow Inception v3 of 2015 weights" in error_of(cal_fid.main, swapped, capsys)
    torch.save(torch.zeros(3), bad)
    for protocol in ("released", "standard"):
        message = error_of(cal_fid.main, [*arguments, bad, "--protocol", protocol], capsys)
        assert "bad.pt: not a file of weights" in message and features.INCEPTION_URLS[protocol] in message
    assert "no such file; --inception_weights" in error_of(cal_fid.main, [*arguments, tmp_path / "none.pth"], capsys)


class Picky(torch.nn.Module):
    """A module that raises by itself."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.shape[2] == 1, "pictures of one row only"
        return pictures.flatten(1)


@pytest.mark.parametrize("protocol", ["released", "standard"])
def test_without_network_the_error_says_what_to_fetch(protocol, folders, tmp_path, capsys, monkeypatch):
    def no_network(*_):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    arguments = ["--real_images", folders[0], "--fake_images", folders[1], "--protocol", protocol]
    message = error_of(cal_fid.main, arguments, capsys)
    assert features.INCEPTION_URLS[protocol] in message and "--inception_weights FILE" in message
    # Where torch hub has the file, nothing is fetched.
    cached = tmp_path / "hub" / "checkpoints" / Path(features.INCEPTION_URLS[protocol]).name
    cached.write_bytes(b"weights")
    assert features.inception_file(protocol) == cached
