"""A training's folder: finished, refused, killed and resumed, on a full disk, and its checkpoints."""

import json
import shlex
import shutil
import signal
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from conftest import ROOT, error_of, files_under, run_script, start_script, train_args
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from trainings import SHORT, largest_difference, unet_of

import train
from core.runs.run import FINISHED, UNFINISHED, Run


def test_the_run_folder_is_a_stable_diffusion_folder_with_its_record(data_root, tiny_model):
    train.main(train_args(data_root, tiny_model, *SHORT, "--fusion_seed", 5, "--checkpointing_images", 2))
    run = data_root / "run"
    pipe = StableDiffusionPipeline.from_pretrained(run, safety_checker=None)
    assert largest_difference(pipe.unet.state_dict(), unet_of(run)) == 0
    record = json.loads((run / "hand1000.json").read_text())
    assert record["status"] == "finished" and record["fusion"] == {"seed": 5}
    assert record["settings"]["Lambda"] == 0.7 and record["settings"]["photos"] == 4
    assert not (run / "fusion.safetensors").exists()  # a seed says it all
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-4"]  # the limit is 1
    UNet2DConditionModel.from_pretrained(run / "checkpoints" / "checkpoint-4" / "unet")
    assert not [name for name in files_under(run) if ".unfinished" in name]
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert modes == {(run / "losses.csv").stat().st_mode & 0o777}  # weights are as readable as the rest


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_killed_and_resumed_ends_with_the_same_bits(schedule, data_root, tiny_model, capsys, one_thread):
    options = ("--schedule", schedule, "--checkpointing_images", 1, "--finetune_lr", 1e-4)
    options += ("--embedding_steps", 12, "--finetune_steps", 10)
    options += ("--lr_scheduler", "cosine") if schedule == "staged" else ()
    command = [ROOT / "train.py", *train_args(data_root, tiny_model, *options)]
    train.main([*command[1:], "--output_dir", str(data_root / "whole")])

    resumed_from = []
    for kills in range(2):  # killed twice, in the staged schedule once in Stage II and once in Stage III
        process = start_script(*command, "--resume_from_checkpoint", "latest")
        needed = 9 if kills and schedule == "staged" else kills + 1  # 8 photos of Stage II, then Stage III
        wait_until(lambda needed=needed: newest(data_root) >= needed, process)
        time.sleep(0.11 * (kills + 1))  # somewhere in the middle of the next photo, or of writing
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed_from.append(newest(data_root))
    assert resumed_from[0] < resumed_from[1] and (schedule == "interleaved" or resumed_from[0] < 8 < resumed_from[1])
    assert not (data_root / "run" / "model_index.json").exists()

    assert "resume it with --resume_from_checkpoint latest" in error_of(train.main, command[1:], capsys)
    resumed = run_script(*command, "--resume_from_checkpoint", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert largest_difference(unet_of(data_root / "whole"), unet_of(data_root / "run")) == 0
    assert (data_root / "whole" / "losses.csv").read_bytes() == (data_root / "run" / "losses.csv").read_bytes()


def newest(data_root: Path) -> int:
    """The photos' worth of work in the run's newest checkpoint."""
    return max([int(path.name.rpartition("-")[2]) for path in run_at(data_root / "run").checkpoints()], default=0)


def wait_until(condition, process) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError("no checkpoint within a minute")


def test_a_finished_run_is_neither_repeated_nor_overwritten(data_root, tiny_model, capsys):
    arguments = train_args(data_root, tiny_model, *SHORT)
    train.main(arguments)
    weights = (data_root / "run" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    train.main([*arguments, "--save_single_file"])  # what was forgotten can be had without training again
    assert "already finished" in capsys.readouterr().out
    assert (data_root / "run" / "palm.safetensors").is_file()
    message = error_of(train.main, [*arguments, "--Lambda", "0.5"], capsys)
    assert "finished training of other settings" in message and "Lambda was 0.7, is now 0.5" in message
    assert (data_root / "run" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == weights


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(data_root, tiny_model, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    room = iter([10**12, 10**12, 10**12, 0, 0])  # at the start, for two checkpoints, then none
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, next(room, 10**12)))
    train.main(train_args(data_root, tiny_model, *SHORT, "--checkpointing_images", 1))
    output = capsys.readouterr().out
    assert "checkpoint-3: not saved, disk too full" in output and "the last good one is checkpoint-2" in output
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["status"] == "finished"

    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    train.main([*train_args(data_root, tiny_model, *SHORT), "--output_dir", str(data_root / "two")])
    assert "0.0 GB free, but the next checkpoint and the finished model need" in capsys.readouterr().out


def test_a_disk_that_fills_up_while_writing_leaves_a_clear_word(data_root, tiny_model):
    """No file may grow beyond 1 MB: neither a checkpoint nor the model can be saved, which are 12 MB."""
    command = [sys.executable, ROOT / "train.py", *train_args(data_root, tiny_model, *SHORT)]
    command += ["--checkpointing_images", 2]
    limited = f"ulimit -f 1000; exec {shlex.join(map(str, command))}"
    done = run_script("-c", limited, launcher=("bash",))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "checkpoint-2: not saved, disk too full" in done.stdout and "there is none yet" in done.stdout
    assert "checkpoint-4: not saved" in done.stdout  # training went on
    assert "can't save the model" in done.stderr and "--resume_from_checkpoint latest" in done.stderr
    assert files_under(data_root / "run") <= {"hand1000.json", "losses.csv", ".hand1000.lock"}
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["status"] == UNFINISHED


def run_at(folder: Path) -> Run:
    return Run(folder / "hand1000.json", {}, what="training")


def test_two_trainings_do_not_share_a_folder(data_root, tiny_model, capsys, monkeypatch):
    """The second one ends before it loads anything, and what is in the folder is looked at under the lock."""
    from core.diffusion import stable_diffusion

    with monkeypatch.context() as patch, run_at(data_root / "run").hold():
        patch.setattr(stable_diffusion, "load_stable_diffusion", None)
        message = error_of(train.main, train_args(data_root, tiny_model, *SHORT), capsys)
        assert "another training is in progress there" in message
        assert files_under(data_root / "run") == {".hand1000.lock"}
    assert not (data_root / "run").exists()  # nothing began there
    train.main(train_args(data_root, tiny_model, *SHORT))


def test_files_that_are_no_run(data_root, tiny_model, capsys):
    run = data_root / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("my only copy")
    message = error_of(train.main, train_args(data_root, tiny_model), capsys)
    assert "holds 'thesis.txt' but no hand1000.json, so it is not a training" in message
    assert files_under(run) == {"thesis.txt"}


def test_a_failed_start_does_not_lock_its_folder(data_root, tiny_model, capsys):
    """A loss of NaN before the first checkpoint: the advice to lower the rate can be followed."""
    wild = train_args(data_root, tiny_model, *SHORT, "--finetune_lr", "1e30")
    message = error_of(train.main, wild, capsys)
    assert "the loss became" in message and "lower the learning rate" in message
    train.main(train_args(data_root, tiny_model, *SHORT))
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["settings"]["finetune_lr"] == 1e-4


# Checkpoints are checked whole before they are used


@pytest.fixture(scope="module")
def stopped(tiny_model, tmp_path_factory) -> Path:
    """Trainings that stopped after a checkpoint: interleaved, and in Stage II and Stage III of the staged schedule."""
    from conftest import small_data

    root = small_data(tmp_path_factory.mktemp("stopped"))
    for name, more in (("interleaved", []), ("staged", ["--schedule", "staged"])):
        options = [*SHORT, "--checkpointing_images", 2, "--checkpoints_total_limit", 9, *more]
        train.main([*train_args(root, tiny_model, *options), "--output_dir", str(root / name)])
        record = json.loads((root / name / "hand1000.json").read_text())
        assert record["status"] == FINISHED
        (root / name / "hand1000.json").write_text(json.dumps({**record, "status": UNFINISHED}))
    return root


def lose(name: str):
    def change(checkpoint: Path) -> None:
        path = checkpoint / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(name: str):
    def change(checkpoint: Path) -> None:
        (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:1000])

    return change


def state(**facts):
    def change(checkpoint: Path) -> None:
        path = checkpoint / "state.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))

    return change


def tensors(name: str, function):
    def change(checkpoint: Path) -> None:
        save_file(function(load_file(checkpoint / name)), checkpoint / name)

    return change


def optimizer(function):
    def change(checkpoint: Path) -> None:
        content = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        function(content["state"])
        torch.save(content, checkpoint / "optimizer.pt")

    return change


def fewer_losses(checkpoint: Path) -> None:
    path = checkpoint / "losses.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


UNET = "unet/diffusion_pytorch_model.safetensors"
DAMAGES = {  # the checkpoint, what is done to it, what is said of it
    "cut weights": ("interleaved", 2, cut(UNET), ""),
    "no weights": ("interleaved", 2, lose("unet"), "diffusion_pytorch_model.safetensors"),
    "a weight less": ("interleaved", 2, tensors(UNET, lambda t: dict(list(t.items())[1:])), "Missing key"),
    "no weights in Stage III": ("staged", 6, lose("unet"), "diffusion_pytorch_model.safetensors"),
    "no optimizer": ("staged", 6, lose("optimizer.pt"), "optimizer.pt"),
    "cut optimizer": ("staged", 6, cut("optimizer.pt"), ""),
    "a moment less": ("staged", 6, optimizer(lambda moments: moments.pop(3)), "Adam's moments of"),
    "another shape": ("staged", 6, optimizer(lambda m: m[3].update(exp_avg=torch.zeros(2))), "not Adam's moments"),
    "no embeddings": ("staged", 2, lose("embeddings.safetensors"), "embeddings.safetensors"),
    "an embedding less": (
        *("staged", 6, tensors("embeddings.safetensors", lambda t: {"prompt_embeds": t["prompt_embeds"][:-1]})),
        r"of shape (3, 77, 32), not (4, 77, 32)",
    ),
    "too much done": ("interleaved", 2, state(done=10**9), "1000000000 is done, not 1 to 4"),
    "too many steps": ("staged", 6, state(done=10**9), "1000000000 is done, not 1 to 12"),
    "nothing done": ("interleaved", 2, state(done=0), "0 is done"),
    "done is true": ("interleaved", 2, state(done=True), "True is done"),
    "other work": ("staged", 6, state(photos=7), "the work of 7 photos, not 6"),
    "no stage": ("staged", 2, state(stage="tea"), "'tea' is not a stage of this schedule"),
    "a list as stage": ("staged", 2, state(stage=["embedding"]), "is not a stage of this schedule"),
    "no scale": ("staged", 2, state(scaler=None), "not the loss scale of this precision"),
    "no losses": ("interleaved", 2, lose("losses.csv"), "losses.csv"),
    "a loss less": ("staged", 2, fewer_losses, "losses.csv has 3 losses, not 4"),
    "other losses": ("interleaved", 2, lambda c: (c / "losses.csv").write_text("image,loss\n"), "its columns are not"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_used(damage, stopped, tiny_model, capsys, tmp_path):
    """It would end with other weights than an uninterrupted run, or with a traceback."""
    schedule, number, change, reason = DAMAGES[damage]
    checkpoint = shutil.copytree(stopped / schedule / "checkpoints" / f"checkpoint-{number}", tmp_path / "checkpoint")
    change(checkpoint)
    options = [*SHORT, "--schedule", schedule, "--resume_from_checkpoint", checkpoint]
    before = (stopped / schedule / "hand1000.json").read_bytes()
    arguments = [*train_args(stopped, tiny_model, *options), "--output_dir", stopped / schedule]
    message = error_of(train.main, arguments, capsys)
    assert message.startswith(f"{checkpoint}: damaged checkpoint (") and message.endswith("); remove it"), message
    assert reason in message
    assert (stopped / schedule / "hand1000.json").read_bytes() == before


def test_checkpoints_of_other_settings_are_refused(stopped, tiny_model, capsys):
    other = train_args(stopped, tiny_model, *SHORT, "--resume_from_checkpoint", "latest", "--seed", 1)
    message = error_of(train.main, [*other, "--output_dir", stopped / "interleaved"], capsys)
    assert "seed was 0, is now 1" in message
