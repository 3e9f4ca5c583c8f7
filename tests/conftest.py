"""Shared by all tests: the tiny Stable Diffusion (built once a session), small data sets, running scripts."""

import os
import shutil
import subprocess
import sys
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


@pytest.fixture
def data_root(tmp_path) -> Path:
    """Eight random pictures of several shapes and kinds in the Hand1000 layout, with a gesture feature."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "palm"
    folder.mkdir()
    names = []
    for index, (width, height, mode) in enumerate(
        [(64, 64, "RGB"), (96, 70, "RGB"), (65, 130, "RGB"), (80, 64, "L"), (64, 91, "RGB"), (70, 70, "P")]
        + [(100, 64, "RGB"), (64, 67, "RGB")]
    ):
        pixels = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        names.append(f"photo{index}.png")
        Image.fromarray(pixels).resize((width, height)).convert(mode).save(folder / names[-1])
    captions = [f"caption {index} of a hand, {PHRASE}" for index in range(len(names))]
    write_lists(tmp_path, names, captions)
    np.save(tmp_path / "palm.npy", rng.normal(0.5, 0.2, 63))
    return tmp_path


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate keeps precision and device for a whole process; scripts run inside the tests choose their own."""
    from accelerate.state import AcceleratorState

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)

    yield forget
    forget()


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


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def copy_model(model: Path, target: Path) -> Path:
    return Path(shutil.copytree(model, target))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)
