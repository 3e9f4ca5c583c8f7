"""From pictures to features: both protocols are the originals, whatever the processes; what folders are refused."""

import re
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import TWO_PROCESSES, run_script
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchvision import transforms
from torchvision.models import inception_v3

from core.hands.detection import find_hands
from core.metrics import fid, kid
from core.metrics.extractors import INCEPTION_URLS, extractor_file
from core.metrics.features import features_of_both
from core.metrics.pictures import list_pictures
from core.metrics.saved_features import load_features, save_features
from core.runs.errors import UserError
from core.runs.photos import list_photos


def test_released_protocol_is_the_released_network_and_preparation(hand_folders, inception_weights):
    network = inception_v3(weights=None, transform_input=True, init_weights=False)
    network.load_state_dict(torch.load(inception_weights["released"]))
    network.fc = torch.nn.Identity()
    prepare = transforms.Compose(
        [transforms.Resize(299), transforms.CenterCrop(299), transforms.ToTensor()]
        + [transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    with torch.no_grad():
        expected = [network.eval()(prepare(Image.open(path))[None])[0].numpy() for path in list_photos(hand_folders[1])]
    real, fake = features_of_both(*hand_folders, inception_weights=inception_weights["released"], batch_size=3)
    assert fake.features.shape == (5, 2048) and np.std(expected, axis=0).mean() > 0
    scale = np.std(expected, axis=0).max()
    assert np.abs(fake.features - expected).max() < 1e-3 * scale
    assert (real.images, real.without_hand, real.crop) == (5, 0, "whole")


def test_standard_protocol_is_torchmetrics(hand_folders, inception_weights):
    weights = inception_weights["standard"]
    network = FrechetInceptionDistance(feature_extractor_weights_path=str(weights)).inception
    theirs = KernelInceptionDistance(network, subset_size=5, subsets=1)
    for folder, is_real in zip(hand_folders, (True, False)):
        for path in list_photos(folder):
            picture = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
            theirs.update(picture, real=is_real)
    real, fake = features_of_both(*hand_folders, protocol="standard", inception_weights=weights)
    scale = torch.cat(theirs.fake_features).std(dim=0).max()
    for ours, their_side in ((real, theirs.real_features), (fake, theirs.fake_features)):
        assert np.abs(ours.features - torch.cat(their_side).numpy()).max() < 1e-3 * scale
    mean = kid(real.features, fake.features, protocol="standard")[0]
    assert mean == pytest.approx(float(theirs.compute()[0]), rel=1e-3, abs=1e-6)


def test_hand_crops_are_the_released_ones_in_true_colours(hand_folders, extractor):
    def released_boxes(picture):
        """Corners of the box of each hand, by a loop over the landmarks."""
        width, height = picture.size
        for hand in find_hands(picture, max_num_hands=2, min_detection_confidence=0.5):
            xs, ys = [x for x, _, _ in hand.landmarks], [y for _, y, _ in hand.landmarks]
            left, top = max(0, int(min(xs) * width)), max(0, int(min(ys) * height))
            yield left, top, min(width, int(max(xs) * width)), min(height, int(max(ys) * height))

    union, each = [], []
    for path in list_photos(hand_folders[1]):
        picture = Image.open(path).convert("RGB")
        boxes = list(released_boxes(picture))
        for left, top, right, bottom in boxes:
            each.append(picture.crop((left, top, right, bottom)).resize((299, 299), Image.Resampling.BILINEAR))
        if boxes:
            lefts, tops, rights, bottoms = zip(*boxes)
            crop = picture.crop((min(lefts), min(tops), max(rights), max(bottoms)))
            union.append(transforms.CenterCrop(299)(transforms.Resize(299)(crop)))
    assert (len(union), len(each)) == (4, 5)
    network = torch.jit.load(extractor)
    for crop, pictures in (("union", union), ("each", each)):
        side = features_of_both(*hand_folders, hands=True, hand_crop=crop, feature_extractor=extractor)[1]
        expected = network(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        assert np.abs(side.features - expected.numpy()).max() < 1e-5
        assert (side.images, side.without_hand, side.crop) == (5, 1, crop)


def test_the_same_features_whatever_the_workers_and_processes(hand_folders, extractor, tmp_path):
    arguments = [
        "cal_kid.py",
        "--real_images",
        hand_folders[0],
        "--fake_images",
        hand_folders[1],
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
        outputs.append((done.stdout, [load_features(path) for path in saved]))
    for stdout, sides in outputs[1:]:
        assert stdout == outputs[0][0]  # the second process is silent
        for side, first in zip(sides, outputs[0][1]):
            assert (side.features == first.features).all() and side[1:] == first[1:]


def test_in_python_folders_files_and_arrays_give_the_same(hand_folders, extractor, tmp_path):
    """Folders as text, the extractor too; the same folder twice; files need no extractor."""
    real, fake = features_of_both(*hand_folders, feature_extractor=extractor)
    value = fid(real.features, fake.features)
    assert fid(*map(str, hand_folders), feature_extractor=str(extractor)) == value > 0
    files = [tmp_path / "real.npz", tmp_path / "fake.npz"]
    for file, side in zip(files, (real, fake)):
        save_features(file, side)
    assert fid(*map(str, files)) == fid(*files, feature_extractor=extractor) == value
    assert fid(files[0], hand_folders[1], feature_extractor=extractor) == value
    assert kid(*files, seed=3) == kid(real.features, fake.features, seed=3)
    assert kid(hand_folders[0], hand_folders[0], feature_extractor=extractor)[0] == pytest.approx(0, abs=1e-9)


def test_errors_in_python_name_arguments_and_no_flags(hand_folders, extractor, tmp_path):
    def error(*sources, **options) -> str:
        with pytest.raises(UserError) as raised:
            fid(*sources, **options)
        assert "--" not in str(raised.value)
        return str(raised.value)

    save_features(tmp_path / "real.npz", features_of_both(*hand_folders, feature_extractor=extractor)[0])
    sources = tmp_path / "real.npz", hand_folders[1]
    assert "module of your own; give it as feature_extractor" in error(*sources)
    assert "x.pt: no such file; feature_extractor takes a TorchScript module" in error(
        *hand_folders, feature_extractor="x.pt"
    )
    assert "no such file; inception_weights takes the file https" in error(*hand_folders, inception_weights="x")
    assert "leave out inception_weights" in error(*hand_folders, feature_extractor=extractor, inception_weights="x")
    assert "gone.npz: no such file; save_features writes one" in error("gone.npz", "gone.npz")
    assert "no hand crop 'all'; there are union and each" in error(*hand_folders, hand_crop="all")


def test_sweeps_and_contact_sheets_are_not_measured(tmp_path):
    image = Image.new("RGB", (8, 8))
    image.save(tmp_path / "sheet.png")
    with pytest.raises(UserError, match="holds only a contact sheet"):
        list_pictures(tmp_path)
    image.save(tmp_path / "result_000_0.png")
    assert [path.name for path in list_pictures(tmp_path)] == ["result_000_0.png"]
    for name in ("mu_0", "mu_0.5"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"holds a folder of pictures for each mu; .* \(mu_0, mu_0.5\)"):
        list_pictures(tmp_path)


@pytest.mark.parametrize("protocol", ["released", "standard"])
def test_without_network_the_error_says_what_to_fetch(protocol, hand_folders, tmp_path, monkeypatch):
    def no_network(*_):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    url = re.escape(INCEPTION_URLS[protocol])
    with pytest.raises(UserError, match=f"no network.*{url} on a machine with network and give .* inception_weights"):
        fid(*hand_folders, protocol=protocol)
    # Where torch hub has the file, nothing is fetched.
    cached = tmp_path / "hub" / "checkpoints" / Path(INCEPTION_URLS[protocol]).name
    cached.write_bytes(b"weights")
    assert extractor_file(protocol, None, None) == cached
