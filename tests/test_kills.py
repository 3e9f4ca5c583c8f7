"""Scripts that are killed at random moments and started again end with the same bits, and leave no process behind.

`KILLS=30 python -m pytest -m slow tests/test_kills.py` kills each of them that often.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hostile import (
    ENRICH,
    EVALUATE,
    GENERATE,
    HANDS,
    IMAGIC,
    INFER,
    LORA,
    RECONSTRUCT,
    RESUME,
    SELECT,
    TRAIN,
    TRAIN_ATTENTION,
    make_files,
)
from test_files import alive, descendants

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc"),
]
KILLS = int(os.environ.get("KILLS", 3))  # of each script
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS_TO_END = 5  # for the workers of a process that was killed

MORE_STEPS = ["--embedding_steps", "4", "--finetune_steps", "8", "--checkpointing_images", "1"]
JOBS = {  # each writes to {}/new
    "train": [*TRAIN, *MORE_STEPS, *RESUME, "--output_dir", "{}/new"],
    "train staged": [*TRAIN, *MORE_STEPS, *RESUME, "--output_dir", "{}/new", "--schedule", "staged"],
    "train lora": [*LORA, *MORE_STEPS, *RESUME, "--output_dir", "{}/new"],
    "hand1000.imagic": [
        *IMAGIC,
        *"--num_images 4 --embedding_steps 9 --finetune_steps 9 --img_save_path {}/new".split(),
    ],
    "attentionhand.reconstruction.train": [
        *RECONSTRUCT,
        *"--max_train_steps 12 --num_workers 2 --output_dir {}/new".split(),
        *RESUME,
    ],
    "image_generation": [*GENERATE, *"--num_inference_steps 99 --num_images 4 --mu 0 1 --img_save_path {}/new".split()],
    "attentionhand.train": [
        *TRAIN_ATTENTION,
        *"--max_train_steps 6 --checkpointing_steps 1 --validation_steps 2 --num_workers 2 --output_dir {}/new".split(),
        *RESUME,
    ],
    "attentionhand.inference": [*INFER, "--num_inference_steps", "60", "--output_dir", "{}/new"],
    "attentionhand.evaluate": [*EVALUATE, "--num_workers", "2", "--json", "{}/new/scores.json"],
    "synthetic_hands.make_dataset": [*HANDS, "--num", "40", "--num_workers", "2", "--output_dir", "{}/new"],
    "captioning.enrich": [*ENRICH, "--data_root", "{}/new"],
    "select_images": [*SELECT, "--data_root", "{}/new"],
    "cal_mean_feature": "--gesture palm --data_root {}/new --num_workers 2".split(),
    "hand_confidence": "--image_folder {}/new/palm --num_workers 2 --json {}/new/a.json".split(),
}


@pytest.fixture(scope="module")
def models(tiny_model, attention_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "model").symlink_to(tiny_model)
    (folder / "attention_model").symlink_to(attention_model)
    return folder


@pytest.fixture(scope="module")
def files(models, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "files"
    make_files(folder, models)
    return folder


def prepare(folder: Path, job: str) -> None:
    """What a script needs in the folder that it writes to."""
    from synthetic_hands.drawn import write_photos

    if job in ("cal_mean_feature", "hand_confidence"):
        write_photos(folder / "new", "palm", 40)
    if job == "captioning.enrich":
        lines = [f"a man in room {number} raising his hand" for number in range(3000)]
        for name, ending in (("palm_BLIP2.txt", ""), ("palm_BLIP2_file_name.txt", ".png")):
            (folder / "new").mkdir(exist_ok=True)
            (folder / "new" / name).write_text("".join(f"{line}{ending}\n" for line in lines))


def start(job: str, folder: Path) -> subprocess.Popen:
    script, arguments = job.partition(" ")[0], JOBS[job]
    command = [sys.executable, "-m", script, *(argument.replace("{}", str(folder)) for argument in arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(job: str, folder: Path) -> None:
    process = start(job, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def content_of(folder: Path, root: Path) -> dict[str, str]:
    """The hash of every file but checkpoints and hidden ones, with the paths in it relative to `root`."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and "checkpoints" not in parts and not any(part.startswith(".") for part in parts):
            content = path.read_bytes().replace(os.fsencode(root), b"")
            found["/".join(parts)] = hashlib.sha256(content).hexdigest()
    return found


def fresh(folder: Path, files: Path, job: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(files, folder, symlinks=True)
    prepare(folder, job)
    return folder


@pytest.mark.parametrize("job", JOBS)
def test_killed_at_random_moments(job, files, tmp_path):
    rng = random.Random(f"{job} {KILLS}")
    whole, killed = fresh(tmp_path / "whole", files, job), fresh(tmp_path / "killed", files, job)
    started = time.monotonic()
    finish(job, whole)
    seconds = time.monotonic() - started
    kills = 0
    while kills < KILLS:
        process = start(job, killed)
        time.sleep(rng.uniform(0.2, seconds))
        workers = descendants(process.pid) if process.poll() is None else []
        process.send_signal(rng.choice(SIGNALS))
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT), errors
        until = time.monotonic() + SECONDS_TO_END
        while any(map(alive, workers)) and time.monotonic() < until:
            time.sleep(0.05)
        assert [worker for worker in workers if alive(worker)] == []
        kills += process.returncode != 0
        if process.returncode == 0:  # it had ended before: begin anew
            assert content_of(killed / "new", killed) == content_of(whole / "new", whole)
            fresh(killed, files, job)
    finish(job, killed)
    assert content_of(killed / "new", killed) == content_of(whole / "new", whole)
