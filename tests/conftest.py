"""Shared by all tests: the tiny Stable Diffusion (built once a session), small data sets, running scripts."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
# Two processes on the CPU (gloo); on a machine with GPUs the tests still run there.
TWO_PROCESSES = (
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--main_process_port",
    "0",
)
PHRASE = "showing open palm hand gesture"

if "PYTEST_XDIST_WORKER" in os.environ:  # a process for each core; set before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A tiny Stable Diffusion with random weights as a diffusers folder. Never write to it."""
    from synthetic_hands.tiny_model import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny_model") / "model")


@pytest.fixture(scope="session")
def attention_model(tmp_path_factory) -> Path:
    """A tiny Stable Diffusion for AttentionHand as a diffusers folder. Never write to it."""
    from attentionhand_helpers import save_attention_model

    return save_attention_model(tmp_path_factory.mktemp("attention_model") / "model")


@pytest.fixture(scope="session")
def attention_pipe(attention_model):
    """The same, loaded. Leave it as it is."""
    from core.diffusion.stable_diffusion import load_stable_diffusion

    return load_stable_diffusion(str(attention_model))


@pytest.fixture(scope="session")
def attention_samples(tmp_path_factory) -> Path:
    """Six samples in AttentionHand's layout. Never write to them."""
    from attentionhand_helpers import make_samples

    return make_samples(tmp_path_factory.mktemp("attention_samples") / "data")


@pytest.fixture(scope="session")
def run_folder(tiny_model, tmp_path_factory) -> Path:
    """The tiny model as a finished run of train.py with fusion seed 3. Never write to it."""
    from trainings import finish_run

    return finish_run(copy_model(tiny_model, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture
def data_root(tmp_path) -> Path:
    return small_data(tmp_path)


def small_data(root: Path) -> Path:
    """Eight random pictures of several shapes and kinds in the Hand1000 layout, with a gesture feature."""
    rng = np.random.default_rng(0)
    photos = root / "palm"
    photos.mkdir()
    names = []
    for index, (width, height, mode) in enumerate(
        [(64, 64, "RGB"), (96, 70, "RGB"), (65, 130, "RGB"), (80, 64, "L"), (64, 91, "RGB"), (70, 70, "P")]
        + [(100, 64, "RGB"), (64, 67, "RGB")]
    ):
        pixels = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        names.append(f"photo{index}.png")
        Image.fromarray(pixels).resize((width, height)).convert(mode).save(photos / names[-1])
    captions = [f"caption {index} of a hand, {PHRASE}" for index in range(len(names))]
    write_lists(root, names, captions)
    np.save(root / "palm.npy", rng.normal(0.5, 0.2, 63))
    return root


@pytest.fixture(scope="session")
def captioners(tmp_path_factory) -> Path:
    """A folder of the captioners' and CLIP's real classes in miniature. Never write to it."""
    from synthetic_hands import tiny_captioners

    folder = tmp_path_factory.mktemp("captioners")
    for name in ("blip2", "paligemma", "vitgpt2", "clip"):
        getattr(tiny_captioners, f"save_{name}")(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data root with eleven pictures in call/, whose names do not sort as they were written."""
    rng = np.random.default_rng(0)
    (tmp_path / "call").mkdir()
    for number in range(11):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60 + number, 50)).save(tmp_path / "call" / f"{number * 7 % 11}.png")
    return tmp_path


@pytest.fixture(scope="module")
def one_thread():
    """Small models are faster on one thread, and give the same bits: several add up in any order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate keeps precision and device for a whole process; scripts run inside the tests choose their own."""
    from accelerate.state import AcceleratorState

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)

    yield forget
    forget()


@pytest.fixture(scope="session")
def extractor(tmp_path_factory) -> Path:
    """A TorchScript feature extractor that needs no download: histograms of oriented gradients, 144 features."""
    from synthetic_hands.feature_extractor import save_feature_extractor

    return save_feature_extractor(tmp_path_factory.mktemp("extractor") / "hog.pt")


@pytest.fixture(scope="session")
def hand_folders(tmp_path_factory) -> tuple[Path, Path]:
    """Pictures of drawn hands: five each, of several sizes; one of the second folder has no hand, one has two."""
    from synthetic_hands.drawn import draw_open_hand

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


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory) -> dict[str, Path]:
    """Local files of both protocols' Inception weights, with random values."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchvision.models import inception_v3

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


def write_lists(data_root: Path, names: list[str], captions: list[str], gesture: str = "palm") -> None:
    (data_root / f"{gesture}_BLIP2_file_name.txt").write_text("\n".join(names) + "\n")
    (data_root / f"{gesture}_BLIP2_modified.txt").write_text("\n".join(captions))  # no newline at the end


def train_args(data_root: Path, model: Path, *more) -> list[str]:
    """Arguments for a short run of train.py on the tiny model."""
    return [
        *("--gesture", "palm", "--data_root", str(data_root), "--pretrained_model_name_or_path", str(model)),
        *("--resolution", "64", "--output_dir", str(data_root / "run"), *map(str, more)),
    ]


def generate_args(data_root: Path, model: Path, output: Path, *more) -> list[str]:
    """Arguments for image_generation.py at the tiny model's size, unresized PNGs."""
    return [
        *("--image_filenames_file", str(data_root / "palm_BLIP2_file_name.txt")),
        *("--prompts_file", str(data_root / "palm_BLIP2_modified.txt")),
        *("--feature_npy_path", str(data_root / "palm.npy"), "--ckpt", str(model), "--img_save_path", str(output)),
        *("--resolution", "64", "--image_size", "0", *map(str, more)),
    ]


def error_of(main, arguments, capsys) -> str:
    """The one line that a script ends with on a user's mistake; checks the exit status and that it is one line."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(lines) == 1, lines
    return lines[0].partition("error: ")[2]


def run_script(*arguments, launcher=(sys.executable,)) -> subprocess.CompletedProcess:
    """Run a script as a user would, in a process of its own on one thread, so that runs are comparable."""
    return subprocess.run(
        [*launcher, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def start_script(*arguments) -> subprocess.Popen:
    """Start a script and leave it running, to be killed."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 60) -> None:
    """Wait until something has happened, while the process is still running."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def copy_model(model: Path, target: Path) -> Path:
    return Path(shutil.copytree(model, target))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def two_samples(real_rows: int, fake_rows: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (rows, size) of two normal distributions that differ in mean and covariance."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(2, size, size)) / np.sqrt(size)
    return rng.normal(size=(real_rows, size)) @ mix[0] + 0.3, rng.normal(size=(fake_rows, size)) @ mix[1]
