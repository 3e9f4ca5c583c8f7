"""cal_fid.py and cal_kid.py: what they print and write, with intervals or without, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, TWO_PROCESSES, error_of, run_script, two_samples
from PIL import Image

import cal_fid
import cal_kid
from core.metrics import fid, kid
from core.metrics.extractors import INCEPTION_NAMES, INCEPTION_URLS
from core.metrics.features import features_of_both
from core.metrics.saved_features import save_features
from core.runs.photos import list_photos

DIGITS = ROOT.parent / "shared" / "data" / "sign-language-digits"


def arguments_for(hand_folders, extractor, *more) -> list[str]:
    values = ["--real_images", hand_folders[0], "--fake_images", hand_folders[1], "--feature_extractor", extractor]
    return [str(value) for value in (*values, "--num_workers", 0, *more)]


def test_cal_fid_and_cal_kid(hand_folders, extractor, tmp_path, capsys):
    result, saved = tmp_path / "result.json", [str(tmp_path / "real.npz"), str(tmp_path / "fake.npz")]
    cal_fid.main(arguments_for(hand_folders, extractor, "--hands", "--json", result, "--save_features", *saved))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Protocol: released, TorchScript ") and lines[0].endswith(", 144 features")
    assert lines[1] == f"Real: {hand_folders[0]}: 5 images, 0 without a hand, 5 hand crops"
    assert lines[2] == f"Fake: {hand_folders[1]}: 5 images, 1 without a hand, 4 hand crops"
    assert lines[3] == "Warning: FID is biased upwards with fewer than 2048 pictures (here 4)"
    value = fid(*hand_folders, hands=True, feature_extractor=extractor)
    assert lines[4:] == [f"FID-H: {value:.6g}"]
    written = json.loads(result.read_text())
    assert written["value"] == pytest.approx(value) and written["metric"] == "FID-H" and written["crop"] == "union"
    assert written["fake"] == {"source": str(hand_folders[1]), "images": 5, "without_hand": 1, "pictures": 4}

    # Saved features: the other metric, without the pictures and without the extractor.
    cal_kid.main(["--real_images", saved[0], "--fake_images", saved[1], "--hands", "--json", str(result)])
    mean, std = kid(*hand_folders, hands=True, feature_extractor=extractor)
    assert capsys.readouterr().out.splitlines()[-1] == f"KID-H mean: {mean:.6g}, KID-H std: {std:.6g}"
    assert json.loads(result.read_text())["std"] == std > 0
    cal_fid.main(arguments_for((saved[0], hand_folders[1]), extractor, "--hands"))
    assert capsys.readouterr().out.splitlines()[-1] == f"FID-H: {value:.6g}"


def test_bootstrap_prints_and_writes_an_interval(hand_folders, extractor, tmp_path, capsys):
    result, sides = tmp_path / "result.json", [tmp_path / "real.npz", tmp_path / "fake.npz"]
    side = features_of_both(*hand_folders, feature_extractor=extractor)[0]
    for path, sample in zip(sides, two_samples(60, 50, 20)):
        save_features(path, side._replace(features=sample))
    arguments = [*("--real_images", sides[0], "--fake_images", sides[1]), "--bootstrap", "100", "--json", result]
    for script in (cal_fid, cal_kid):
        script.main(list(map(str, arguments)))
        low, high = map(float, capsys.readouterr().out.splitlines()[-1].removeprefix("95 % interval: ").split(" to "))
        written = json.loads(result.read_text())
        assert low < written["value"] < high and written["interval_95"] == pytest.approx([low, high], rel=1e-4)
    save_features(sides[0], side)
    save_features(sides[1], side)
    for script in (cal_fid, cal_kid):  # too few for an interval: the value is kept
        result.unlink()
        script.main(list(map(str, arguments)))
        reason = "an interval needs at least 10 pictures a side, not 5"
        assert capsys.readouterr().out.splitlines()[-1] == f"No 95 % interval: {reason}"
        written = json.loads(result.read_text())
        assert written["value"] == pytest.approx(0, abs=1e-9)
        assert written["interval_95"] is None and written["no_interval"] == reason
    with pytest.raises(SystemExit):
        cal_fid.main(["--real_images", "a", "--fake_images", "b", "--bootstrap", "10"])
    assert "10 is too few for a 95 % interval: 100 at least" in capsys.readouterr().err


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


def test_bad_folders_and_pictures(hand_folders, extractor, tmp_path, capsys):
    def error(real, fake, *more):
        return error_of(cal_fid.main, arguments_for((real, fake), extractor, *more), capsys)

    assert "nowhere: no such folder" in error(tmp_path / "nowhere", hand_folders[1])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: holds no photos" in error(hand_folders[0], empty)
    (empty / "a.png").write_bytes(b"not a picture")
    assert "a.png: not a readable image" in error(hand_folders[0], empty)
    Image.new("RGB", (64, 64)).save(empty / "a.png")
    assert "empty: MediaPipe found no hand in its 1 picture" in error(hand_folders[0], empty, "--hands")
    assert "empty: 1 picture; a distribution needs at least 2" in error(hand_folders[0], empty)
    done = run_script(
        "cal_fid.py", *arguments_for((hand_folders[0], empty), extractor, "--hands"), launcher=TWO_PROCESSES
    )
    assert done.returncode != 0 and done.stderr.count("cal_fid.py: error: ") == 1


def test_bad_features(hand_folders, extractor, tmp_path, capsys):
    saved = tmp_path / "real.npz"
    side = features_of_both(*hand_folders, feature_extractor=extractor)[0]

    def error(changes, *more):
        save_features(saved, side._replace(**changes))
        return error_of(cal_kid.main, arguments_for((saved, hand_folders[1]), extractor, *more), capsys)

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
    assert "real.npz: not a file of features; save_features writes one" in message
    saved.unlink()
    assert "real.npz: no such file" in error_of(cal_kid.main, arguments_for((saved, saved), extractor), capsys)
    save_features(saved, side)
    message = error_of(cal_kid.main, ["--real_images", saved, "--fake_images", hand_folders[1]], capsys)
    assert "real.npz: its features come from a module of your own; give it as feature_extractor" in message
    message = error_of(
        cal_kid.main, arguments_for(hand_folders, extractor, "--json", saved, "--save_features", saved), capsys
    )
    assert "real.npz: two outputs can't go to the same file" in message
    real = tmp_path / "real.npz"
    for outputs in (["--json", real], ["--save_features", real]):
        message = error_of(cal_kid.main, ["--real_images", real, "--fake_images", real, *outputs], capsys)
        assert "real.npz: is an input of this command; write to another file" in message


def test_bad_extractors(hand_folders, inception_weights, tmp_path, capsys):
    bad = tmp_path / "bad.pt"
    assert "bad.pt: no such file" in error_of(cal_fid.main, arguments_for(hand_folders, bad), capsys)
    bad.write_bytes(b"no module")
    assert "bad.pt: not a TorchScript module" in error_of(cal_fid.main, arguments_for(hand_folders, bad), capsys)
    torch.jit.trace(torch.nn.Flatten(0), torch.zeros(2, 3, 299, 299, dtype=torch.uint8)).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(hand_folders, bad), capsys)
    assert "the extractor gave (1341015,) for uint8 pictures of shape (5, 3, 299, 299), not (N, D)" in message
    torch.jit.script(Nothing()).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(hand_folders, bad), capsys)
    assert "bad.pt: the extractor gave (5, 0) for 5 pictures: no features at all" in message
    torch.jit.script(Huge()).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(hand_folders, bad), capsys)
    assert "real: features of up to" in message and "are too large to compute with (above 1e+30)" in message
    torch.jit.script(Picky()).save(str(bad))
    assert "the extractor failed on uint8 pictures of shape (5, 3, 299, 299)" in error_of(
        cal_fid.main, arguments_for(hand_folders, bad), capsys
    )
    torch.jit.script(torch.nn.Flatten(1)).save(str(bad))
    message = error_of(cal_fid.main, arguments_for(hand_folders, bad, "--protocol", "standard"), capsys)
    assert "the extractor gives between 120000 and 196608 features, depending on the size of the picture" in message
    done = run_script("cal_fid.py", *arguments_for(hand_folders, bad, "--protocol", "standard"), launcher=TWO_PROCESSES)
    assert done.returncode != 0 and done.stderr.count("cal_fid.py: error: the extractor gives between") == 1
    arguments = arguments_for(hand_folders, bad, "--inception_weights", inception_weights["released"])
    assert "argument --inception_weights: not allowed with argument --feature_extractor" in error_of(
        cal_fid.main, arguments, capsys
    )
    arguments = ["--real_images", hand_folders[0], "--fake_images", hand_folders[1], "--inception_weights"]
    swapped = [*arguments, inception_weights["standard"]]
    assert "tensorflow.pth: not a file of the torchvision Inception v3 weights; get https://" in error_of(
        cal_fid.main, swapped, capsys
    )
    swapped = [*arguments, inception_weights["released"], "--protocol", "standard"]
    assert "not a file of the TensorFlow Inception v3 of 2015 weights" in error_of(cal_fid.main, swapped, capsys)
    torch.save(torch.zeros(3), bad)
    for protocol in ("released", "standard"):
        message = error_of(cal_fid.main, [*arguments, bad, "--protocol", protocol], capsys)
        assert f"bad.pt: not a file of the {INCEPTION_NAMES[protocol]} weights" in message
        assert INCEPTION_URLS[protocol] in message
    assert "no such file; inception_weights" in error_of(cal_fid.main, [*arguments, tmp_path / "none.pth"], capsys)


class Picky(torch.nn.Module):
    """A module that raises by itself."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.shape[2] == 1, "pictures of one row only"
        return pictures.flatten(1)


class Nothing(torch.nn.Module):
    """A module that gives no features."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)[:, :0]


class Huge(torch.nn.Module):
    """A module whose features are too large to compute with."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return (1.0 + pictures[:, 0, 0, :4].float()) * 1e34


def test_a_sweep_is_refused(tmp_path, hand_folders, extractor, capsys):
    for mu in ("mu_0", "mu_0.5"):
        (tmp_path / mu).mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "grid.png")
    message = error_of(cal_fid.main, arguments_for((hand_folders[0], tmp_path), extractor), capsys)
    assert message.strip() == f"{tmp_path}: holds a folder of pictures for each mu; measure one of them (mu_0, mu_0.5)"


@pytest.mark.parametrize("script", ["cal_fid", "cal_kid", "hand_confidence"])
def test_help_is_a_manual(script):
    done = run_script(f"{script}.py", "--help")
    manual = " ".join(done.stdout.split())
    assert done.returncode == 0 and "Examples:" in manual and "--seed SEED seed of everything" in manual
    assert "(default: 0)" in manual and "--bootstrap N" in manual and "None" not in manual
