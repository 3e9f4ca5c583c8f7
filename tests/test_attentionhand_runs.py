"""AttentionHand's trainings and pictures may be killed, resumed, extended, refused or finished."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from attentionhand_helpers import SIZE, inference_args, train_args, trained_stage, weights
from conftest import TWO_PROCESSES, error_of, files_under, pixels, run_script, start_script

from attentionhand import checkpoints, evaluate, inference, train, training
from attentionhand.visual_attention import new_stage
from core.diffusion.checkpoints import load_step_checkpoint, save_step_checkpoint
from core.runs.errors import UserError
from core.runs.run import Run, warn_of_small_disk, write_losses

pytestmark = pytest.mark.usefixtures("one_thread")
EVERY_STEP = ("--checkpointing_steps", 1)
LATEST = ("--resume_from_checkpoint", "latest")


@pytest.fixture(scope="module")
def finished(one_thread, attention_samples, attention_model, tmp_path_factory) -> Path:
    """A training of 4 steps with validation pictures and all.ckpt beside its folder. Never write to it."""
    run = tmp_path_factory.mktemp("finished") / "run"
    more = ("--validation_steps", 2, "--save_single_file", run.parent / "all.ckpt")
    train.main(train_args(attention_samples, attention_model, run, *more))
    return run


@pytest.fixture(scope="module")
def six_steps(one_thread, attention_samples, attention_model, tmp_path_factory) -> Path:
    """A training of 6 steps in one go. Never write to it."""
    run = tmp_path_factory.mktemp("six") / "run"
    arguments = train_args(attention_samples, attention_model, run, *EVERY_STEP, "--max_train_steps", 6)
    train.main(arguments)
    return run


def same_run(run: Path, other: Path) -> bool:
    """Whether weights and losses are the same, bit for bit."""
    ours, theirs = weights(run), weights(other)
    same = all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    return same and (run / "losses.csv").read_text() == (other / "losses.csv").read_text()


def interrupt(monkeypatch, module, name: str, when) -> None:
    """Let a function stop the training as a kill would, before it does anything, on the call that `when` picks."""
    function, calls = getattr(module, name), []

    def interrupted(*arguments, **options):
        calls.append(name)
        if when(len(calls)):
            raise KeyboardInterrupt
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)


def killed_training(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 130


# Training


def test_a_finished_training(finished, attention_samples, attention_model, attention_pipe, tmp_path, capsys):
    rows = list(csv.DictReader((finished / "losses.csv").open()))
    assert [row["step"] for row in rows] == list("0123") and all(float(row["local_loss"]) > 0 for row in rows)
    record = json.loads((finished / "attentionhand.json").read_text())
    assert record["status"] == "finished" and record["steps"] == 4
    assert sorted(path.name for path in (finished / "validation").iterdir()) == ["step_000002.png", "step_000004.png"]
    header, footer, cell = 24, 20, 200
    sheet = pixels(finished / "validation" / "step_000004.png")
    assert sheet.shape == (header + 4 * (cell + footer), 3 * cell, 3)
    checkpoint = finished / "checkpoints" / "checkpoint-4"
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint-4"]
    final, saved = weights(finished), weights(checkpoint)  # a ControlNet of diffusers, too
    assert all(torch.equal(tensor, saved[name]) for name, tensor in final.items())
    assert {"optimizer.pt", "losses.csv", "state.json"} < files_under(checkpoint)

    def again(*more) -> list[str]:
        return train_args(attention_samples, attention_model, finished, *more)

    train.main(again())
    assert f"{finished}: already finished with these settings and 4 steps" in capsys.readouterr().out
    moved = shutil.copytree(attention_model, tmp_path / "moved")
    elsewhere = ("--pretrained_model_name_or_path", moved, "--gradient_checkpointing", "--num_workers", 1)
    train.main(again(*elsewhere, "--save_single_file", tmp_path / "later.ckpt"))
    assert "already finished" in capsys.readouterr().out
    tensors, later = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (finished.parent / "all.ckpt", tmp_path / "later.ckpt")
    )
    assert all(torch.equal(tensor, later[name]) for name, tensor in tensors.items())
    message = error_of(train.main, again("--seed", 1), capsys)
    assert "holds a finished training of other settings (seed was 0, is now 1)" in message
    assert "holds a finished training of 4 steps, not 3; or" in error_of(
        train.main, again("--max_train_steps", 3, *LATEST), capsys
    )
    assert "of 4 steps, not 6; to extend it, pass --resume_from_checkpoint latest" in error_of(
        train.main, again("--max_train_steps", 6), capsys
    )


def test_extended_and_interrupted(
    finished, six_steps, attention_samples, attention_model, tmp_path, monkeypatch, capsys
):
    """The same bits as in one go; inference refuses an unfinished or changed training, evaluation mentions it."""
    run, pictures, labels = shutil.copytree(finished, tmp_path / "run"), tmp_path / "pictures", tmp_path / "none.npz"
    draw = inference_args(run, attention_samples, attention_model, pictures)
    inference.main(draw)
    extend = train_args(attention_samples, attention_model, run, "--max_train_steps", 6, *EVERY_STEP, *LATEST)
    with monkeypatch.context() as patch:
        interrupt(patch, training, "share_gradients", lambda call: call == 2)
        killed_training(extend)
    capsys.readouterr()
    message = "holds an unfinished training; resume it first with --resume_from_checkpoint latest"
    assert message in error_of(inference.main, draw, capsys)
    shorter = train_args(attention_samples, attention_model, run, *LATEST)
    assert "checkpoint-5: made after 5 steps, which is more than the 4 asked for" in error_of(
        train.main, shorter, capsys
    )
    train.main(extend)
    assert f"resuming from {run / 'checkpoints' / 'checkpoint-5'}" in capsys.readouterr().out
    assert same_run(run, six_steps)
    assert "of other settings (weights was " in error_of(inference.main, draw, capsys)
    compare = ["--labels", str(labels), "--image_folder", str(pictures)]
    with pytest.raises(SystemExit):  # there are no labels
        evaluate.main(compare)
    assert f"warning: {run} has changed since {pictures} was drawn" in capsys.readouterr().out


def test_killed_and_on_two_processes(six_steps, attention_samples, attention_model, attention_pipe, tmp_path, capsys):
    arguments = (*EVERY_STEP, "--max_train_steps", 6)
    script = ("-m", "attentionhand.train")
    killed, two = tmp_path / "killed", tmp_path / "two"
    process = start_script(*script, *train_args(attention_samples, attention_model, killed, *arguments))
    while not list((killed / "checkpoints").glob("checkpoint-*")) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert not (killed / "config.json").exists()  # not yet a ControlNet
    again = train_args(attention_samples, attention_model, killed, *arguments)
    assert "resume it with --resume_from_checkpoint latest" in error_of(train.main, again, capsys)
    done = run_script(*script, *train_args(attention_samples, attention_model, killed, *arguments, *LATEST))
    assert done.returncode == 0 and "resuming from" in done.stdout, done.stderr
    assert same_run(killed, six_steps)

    shared = train_args(attention_samples, attention_model, two, *arguments, "--train_batch_size", 1)
    done = run_script(*script, *shared, launcher=TWO_PROCESSES)
    assert done.returncode == 0, done.stderr[-2000:]
    both, expected = weights(two), weights(six_steps)
    start = new_stage(attention_pipe.unet, attention_pipe.vae).state_dict()
    # Adam blows rounding up where a gradient is nearly zero.
    difference = sum((both[name] - expected[name]).abs().sum().item() for name in expected)
    assert difference < 0.02 * sum((expected[name] - start[name]).abs().sum().item() for name in expected)


def test_no_validation_picture_is_lost(finished, attention_samples, attention_model, tmp_path, monkeypatch):
    """Killed where the pictures are drawn and the checkpoint is not yet written."""
    run = tmp_path / "run"
    more = ("--validation_steps", 2, "--checkpointing_steps", 2)
    with monkeypatch.context() as patch:
        interrupt(patch, checkpoints, "save_checkpoint", lambda call: call == 2)
        killed_training(train_args(attention_samples, attention_model, run, *more))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-2"]
    (run / "validation" / "step_000004.png").unlink()
    train.main(train_args(attention_samples, attention_model, run, *more, *LATEST))
    for name in ("step_000002.png", "step_000004.png"):
        assert (pixels(run / "validation" / name) == pixels(finished / "validation" / name)).all()
    assert same_run(run, finished)


def test_less_memory_and_rarer_looks_at_the_losses_change_nothing(
    finished, attention_samples, attention_model, tmp_path
):
    """Activations computed again, also of the UNet that the text attention stage shares."""
    run = tmp_path / "run"
    more = ("--gradient_checkpointing", "--logging_steps", 3, "--checkpointing_steps", 3)
    train.main(train_args(attention_samples, attention_model, run, *more))
    assert same_run(run, finished)


def test_a_full_disk_costs_no_run(finished, attention_samples, attention_model, tmp_path, monkeypatch, capsys):
    """Neither the checkpoints nor the validation pictures can be written; the training ends with the same weights."""
    run = tmp_path / "run"

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(training, "save_png", full)
    more = ("--checkpointing_steps", 2, "--validation_steps", 4)
    train.main(train_args(attention_samples, attention_model, run, *more))
    printed = capsys.readouterr().out
    assert "checkpoint-2: not saved, disk too full" in printed and "checkpoint-4: not saved" in printed
    assert "step_000004.png: not saved ([Errno 28] No space left on device); the run continues" in printed
    assert same_run(run, finished) and list((run / "checkpoints").iterdir()) == []


def test_a_full_disk_at_the_end(attention_samples, attention_model, tmp_path, monkeypatch, capsys):
    """One line, and the run is resumed once there is space."""
    run = tmp_path / "run"
    more = ("--max_train_steps", 1, "--checkpointing_steps", 1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_weights", full)
        message = error_of(train.main, train_args(attention_samples, attention_model, run, *more), capsys)
    assert message == (
        f"{run}: can't save the model ([Errno 28] No space left on device); free some space and start again "
        "with --resume_from_checkpoint latest"
    )
    assert json.loads((run / "attentionhand.json").read_text())["status"] == "unfinished"
    train.main(train_args(attention_samples, attention_model, run, *more, *LATEST))
    assert (run / "config.json").is_file()
    capsys.readouterr()
    warn_of_small_disk(run, 1e18)
    assert "the next checkpoint and the finished model need 1000000000.0 GB; free" in capsys.readouterr().out


def test_a_folder_is_a_controlnet_only_when_whole(attention_samples, attention_model, tmp_path, monkeypatch):
    run = tmp_path / "run"
    more = ("--max_train_steps", 1, "--checkpointing_steps", 1)
    with monkeypatch.context() as patch:
        interrupt(patch, checkpoints, "write_losses", lambda call: call == 2)  # the first is the checkpoint's
        killed_training(train_args(attention_samples, attention_model, run, *more))
    visible = {path.name for path in run.iterdir() if not path.name.endswith(".embeddings.npy")}  # of the killed run
    assert visible == {".attentionhand.lock", "attentionhand.json", "checkpoints"}
    train.main(train_args(attention_samples, attention_model, run, *more, *LATEST))
    assert {"config.json", "diffusion_pytorch_model.safetensors", "losses.csv"} < files_under(run)


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("optimizer.pt", b"cut"),
        ("optimizer.pt", None),
        ("diffusion_pytorch_model.safetensors", b"cut"),
        ("losses.csv", b"step,global_loss,local_loss\r\n0,1.0,1.0\r\n"),
        ("losses.csv", b"step,loss\r\n"),
        ("state.json", b"{"),
    ],
)
def test_a_damaged_checkpoint(finished, attention_samples, attention_model, tmp_path, capsys, part, content):
    run = shutil.copytree(finished, tmp_path / "run")
    damaged = run / "checkpoints" / "checkpoint-4" / part
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    extend = train_args(attention_samples, attention_model, run, "--max_train_steps", 5, *LATEST)
    message = error_of(train.main, extend, capsys)
    assert "checkpoint-4" in message and ("damaged" in message or "not a checkpoint of a training" in message)
    assert json.loads((run / "attentionhand.json").read_text())["status"] == "finished"  # it still is


def test_the_scaler_of_fp16_comes_back(attention_pipe, tmp_path):
    run = Run(tmp_path / "attentionhand.json", {}, what="training")
    stage = trained_stage(attention_pipe).requires_grad_(True)
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=7)
    parts = {"stage": stage, "unet": None, "optimizer": optimizer}
    checkpoints.save_checkpoint(run, 1, **parts, scaler=scaler, losses=[[0, 1.5, ""]], keep=1)
    other = torch.amp.GradScaler("cpu")
    (checkpoint,) = run.checkpoints()
    assert checkpoints.load_checkpoint(run, checkpoint, **parts, scaler=other) == (1, [["0", "1.5", ""]])
    assert other.state_dict() == scaler.state_dict()
    (checkpoint / "state.json").write_text('{"settings": {}, "step": 1, "scaler": null, "moments": 0}')
    with pytest.raises(UserError, match="damaged checkpoint"):
        checkpoints.load_checkpoint(run, checkpoint, **parts, scaler=other)


def test_training_mistakes(
    attention_samples, attention_model, tiny_model, finished, tmp_path, capsys, fresh_accelerate
):
    def message(*more) -> str:
        fresh_accelerate()
        return error_of(train.main, train_args(attention_samples, attention_model, tmp_path / "run", *more), capsys)

    assert "no such file" in message("--resume_path", tmp_path / "none.ckpt")
    assert f"{tiny_model}: has no cross-attention at a quarter of the latents' side" in message(
        "--tas_model", tiny_model
    )
    if not torch.cuda.is_available():
        assert "needs a GPU" in message("--mixed_precision", "fp16")
    assert "not a tracker that accelerate knows" in message("--report_to", "tensorbord")
    assert "name a .ckpt or a .safetensors" in message("--save_single_file", tmp_path / "all.bin")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert "holds 'config.json' but no attentionhand.json, so it is not a training" in message(
        "--output_dir", tmp_path / "mine"
    )
    assert "modalities.json" in message("--data_dir", tmp_path)
    assert "is not a multiple of" in message("--resolution", 60)
    own = "would overwrite weights of the run itself"
    assert own in message("--save_single_file", tmp_path / "run" / "diffusion_pytorch_model.safetensors")
    assert own in message("--save_single_file", tmp_path / "run" / "unet" / "all.safetensors")
    needed = "would overwrite weights that the training starts from"
    released = finished.parent / "all.ckpt"
    assert needed in message("--resume_path", released, "--save_single_file", released)
    stage_file = finished / "diffusion_pytorch_model.safetensors"
    assert needed in message("--resume_path", finished, "--save_single_file", stage_file)
    assert needed in message("--save_single_file", attention_model / "unet" / "all.safetensors")
    assert not (tmp_path / "run").exists()


# Pictures


def test_pictures(finished, attention_samples, attention_model, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    more = ("--tas", "--tas_steps", 1)
    arguments = inference_args(finished, attention_samples, attention_model, pictures, *more)
    inference.main(arguments)
    expected = {f"result_{pair:03d}_{number}.png" for pair in range(6) for number in range(2)}
    assert files_under(pictures) == expected | {"sheet.png", "pictures.jsonl", "inference.json", ".inference.lock"}
    assert pixels(pictures / "sheet.png").shape == (24 + 6 * 220, 600, 3)
    first = pixels(pictures / "result_003_1.png")
    assert first.shape == (SIZE, SIZE, 3)
    (pictures / "result_003_1.png").unlink()
    inference.main(arguments)
    assert "12 pictures of 6 labels, 1 drawn now" in capsys.readouterr().out
    assert (pixels(pictures / "result_003_1.png") == first).all()
    inference.main(arguments)
    assert f"{pictures}: already finished with these settings" in capsys.readouterr().out
    assert "guidance_scale was 9.0, is now 5.0" in error_of(
        inference.main, [*arguments, "--guidance_scale", "5"], capsys
    )
    moved = shutil.copytree(finished, tmp_path / "moved")
    inference.main(inference_args(moved, attention_samples, attention_model, pictures, *more))
    assert "already finished" in capsys.readouterr().out

    released = inference_args(finished.parent / "all.ckpt", attention_samples, attention_model, tmp_path / "b", *more)
    inference.main(released)
    assert (pixels(tmp_path / "b" / "result_003_1.png") == first).all()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "result_000_0.png").write_bytes(b"mine")
    foreign = inference_args(finished, attention_samples, attention_model, tmp_path / "mine")
    assert "holds 'result_000_0.png' but no inference.json" in error_of(inference.main, foreign, capsys)
    (moved / "attentionhand.json").write_text("{}")
    broken = inference_args(moved, attention_samples, attention_model, tmp_path / "c")
    assert "attentionhand.json: damaged (it has no settings)" in error_of(inference.main, broken, capsys)
    assert not (tmp_path / "c").exists()


def test_batches_and_processes_draw_the_same_pictures(
    finished, attention_samples, attention_model, tmp_path, fresh_accelerate, capsys
):
    """Two texts for each label, start noise by label: batches change rounding only, processes nothing."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a hand in the snow\nholding a cup\n")

    def arguments(name: str, *more) -> list[str]:
        options = ("--vary_seed", "--texts", texts, "--every", *more)
        return inference_args(finished, attention_samples, attention_model, tmp_path / name, *options)

    inference.main(arguments("one", "--batch_size", 1))
    inference.main(arguments("five", "--batch_size", 5))
    done = run_script("-m", "attentionhand.inference", *arguments("two", "--batch_size", 5), launcher=TWO_PROCESSES)
    assert done.returncode == 0 and "24 pictures of 6 labels, 24 drawn now" in done.stdout, done.stderr[-2000:]
    listed = [json.loads(line) for line in (tmp_path / "two" / "pictures.jsonl").read_text().splitlines()]
    assert listed[6] == {"file": "result_001_2.png", "label": 1, "text": "holding a cup"}
    made = {name: [pixels(tmp_path / name / one["file"]) for one in listed] for name in ("one", "five", "two")}
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(made["one"], made["five"], strict=True))
    assert all((a == b).all() for a, b in zip(made["five"], made["two"], strict=True))
    first = made["one"]
    assert not any((a == b).all() for i, a in enumerate(first) for b in first[:i])  # every picture is its own

    # A picture that is lost comes back bit for bit, whatever else its batch holds.
    (tmp_path / "five" / "result_001_2.png").unlink()
    inference.main(arguments("five", "--batch_size", 5))
    assert (pixels(tmp_path / "five" / "result_001_2.png") == made["five"][6]).all()
    texts.write_text("one\n")
    assert "texts.txt: 1 line for 6 labels; one each, or pass --every" in error_of(
        inference.main, [part for part in arguments("six") if part != "--every"], capsys
    )


def test_a_checkpoint_of_an_optimiser_that_was_not_fused_resumes_fused(tmp_path):
    """fp16's scaler hands a fused optimiser what another one refuses."""

    def optimiser_of(model: torch.nn.Module) -> torch.optim.Optimizer:
        return training.make_optimizer(list(model.parameters()), 1e-2)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    first = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(first.parameters(), lr=1e-2)  # as an earlier version made it
    step(first, optimizer)
    run = Run(tmp_path / "run.json", {}, what="training")
    run.begin()

    def write(folder: Path) -> None:
        torch.save(first.state_dict(), folder / "weights.pt")
        write_losses(folder / "losses.csv", ("loss",), [[1.0]])

    save_step_checkpoint(run, 1, write, optimizer=optimizer, scaler=None, size=100, keep=1)
    second = torch.nn.Linear(3, 2)
    resumed = optimiser_of(second)
    done, _ = load_step_checkpoint(
        run,
        run.checkpoint_to_resume("latest"),
        lambda folder: second.load_state_dict(torch.load(folder / "weights.pt", weights_only=True)),
        optimizer=resumed,
        scaler=None,
        columns=("loss",),
    )
    assert done == 1 and resumed.param_groups[0]["fused"]
    for model, of in ((first, optimizer), (second, resumed)):
        step(model, of)
    torch.testing.assert_close(first.state_dict(), second.state_dict())
