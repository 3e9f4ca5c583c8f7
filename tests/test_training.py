"""train.py: the released numbers, both schedules, going on after a kill, several processes, mistakes."""

import json
import re
import shlex
import shutil
import signal
import sys
import time
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import released
import torch
from conftest import ROOT, TWO_PROCESSES, error_of, files_under, run_script, start_script, train_args, write_lists
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import train
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.runs.run import UNFINISHED, read_losses
from hand1000 import files, run_folder, training

SHORT = ("--embedding_steps", 2, "--finetune_steps", 3, "--finetune_lr", 1e-4, "--max_train_images", 4)


def unet_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a)


def listed(data_root: Path) -> tuple[list[Path], list[str]]:
    names = (data_root / "palm_BLIP2_file_name.txt").read_text().split("\n")[:-1]
    return [data_root / "palm" / name for name in names], (data_root / "palm_BLIP2_modified.txt").read_text().split(
        "\n"
    )


def test_interleaved_equals_the_released_code(data_root, tiny_model):
    torch.manual_seed(7)
    fusion = torch.nn.Linear(77 * 32 + 63, 77 * 32)
    save_file(fusion.state_dict(), data_root / "fusion.safetensors")
    pipe = load_stable_diffusion(str(tiny_model))
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    photos, captions = listed(data_root)
    feature = np.load(data_root / "palm.npy")
    expected = released.train(pipe, fusion, feature, photos[:4], captions[:4], Lambda=0.6, resolution=64)

    train.main(
        train_args(data_root, tiny_model, "--Lambda", 0.6, "--max_train_images", 4)
        + ["--fusion_checkpoint", str(data_root / "fusion.safetensors")]
    )
    rows = read_losses(data_root / "run" / "losses.csv")
    one_photo = [("embedding", step) for step in range(10)] + [("finetune", step) for step in range(20)]
    assert [row[:3] for row in rows] == [(f"photo{i}.png", *stage_step) for i in range(4) for stage_step in one_photo]
    assert np.abs(np.array([row[3] for row in rows]) - expected).max() < 1e-6
    trained = unet_of(data_root / "run")
    assert largest_difference(trained, pipe.unet.state_dict()) < 2e-6
    # 80 Adam steps of 1e-6: the comparison above means something only if the weights moved by much more than that.
    assert largest_difference(trained, before) > 2e-5


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
    assert not [name for name in files_under(run) if ".tmp" in name]
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert modes == {(run / "losses.csv").stat().st_mode & 0o777}  # weights are as readable as the rest


def test_random_numbers_are_the_released_ones():
    """Timesteps read off the released code, at 8 x 8 latents and seed 0; every photo has the same."""
    draws = training.photo_draws(0, (1, 4, 8, 8), training.Hyperparameters())
    timesteps = [int(draw.timesteps) for draw in (*draws.embedding, *draws.finetune)]
    assert timesteps[:10] == [937, 963, 175, 940, 928, 961, 991, 404, 474, 46]
    assert timesteps[10:13] == [752, 409, 901] and len(timesteps) == 30
    torch.manual_seed(0)
    assert torch.equal(training.posterior_noise(0, (1, 4, 8, 8)), torch.randn(1, 4, 8, 8))


def test_staged_equals_the_papers_order_done_literally(data_root, tiny_model):
    """Three photos in batches of two: Stage II for all of them, then Stage III with one Adam."""
    options = ("--schedule", "staged", "--train_batch_size", 2, "--embedding_steps", 2, "--finetune_steps", 3)
    options += ("--max_train_images", 3, "--finetune_lr", 1e-4, "--seed", 4)
    arguments = train_args(data_root, tiny_model, *options)
    train.main(arguments)

    args = train.parse_args(arguments)
    pipe = load_stable_diffusion(str(tiny_model))
    photos, captions = listed(data_root)
    feature = np.load(data_root / "palm.npy").astype(np.float32)
    data = train.encode(args, pipe, photos[:3], captions[:3], feature, "cpu")
    params, shape = training.Hyperparameters(embedding_steps=2, finetune_steps=3), (1, 4, 16, 16)
    seeds = [training.staged_photo_seed(4, photo) for photo in range(3)]
    places = [
        (training.shuffled_photo(place, 3, 4), *training.stage_three_draw(4, place, shape)) for place in range(10)
    ]  # three passes over three photos, and one more place to fill the fifth batch
    assert sorted(photo for photo, _, _ in places[:9]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({int(t) for _, _, t in places}) > 5  # every place has its own noise and timestep
    expected = released.train_staged(
        pipe,
        data.latents,
        data.prompt_embeds,
        [training.photo_draws(seed, shape, params).embedding for seed in seeds],
        [places[start : start + 2] for start in range(0, 10, 2)],
        finetune_lr=1e-4,
    )
    rows = [row for row in read_losses(data_root / "run" / "losses.csv") if row[1] == "finetune"]
    assert [row[0] for row in rows] == [f"photo{photo}.png" for photo, _, _ in places]
    assert np.abs(np.array([row[3] for row in rows]) - expected).max() < 1e-5


def test_staged_does_not_depend_on_the_batch_size_in_stage_two(data_root, tiny_model):
    """Every photo's embedding is optimised as if alone: the same losses one by one and four at a time."""
    losses = {}
    for batch in (1, 4):
        train.main(
            train_args(data_root, tiny_model, *SHORT, "--schedule", "staged", "--train_batch_size", batch)
            + ["--output_dir", str(data_root / f"run{batch}")]
        )
        rows = read_losses(data_root / f"run{batch}" / "losses.csv")
        losses[batch] = {row[:3]: row[3] for row in rows if row[1] == "embedding"}
    assert losses[1].keys() == losses[4].keys() and len(losses[1]) == 4 * 2
    assert max(abs(losses[1][key] - losses[4][key]) for key in losses[1]) < 2e-6


def test_staged_on_two_processes_equals_one(data_root, tiny_model):
    """Five photos in global batches of four: also a last batch that does not fill both processes."""
    options = ("--schedule", "staged", "--embedding_steps", 2, "--finetune_steps", 2, "--finetune_lr", 1e-4)
    options += ("--max_train_images", 5, "--checkpointing_images", 4)
    common = [ROOT / "train.py", *train_args(data_root, tiny_model, *options)]
    one = run_script(*common, "--train_batch_size", 4)
    other = (*common, "--train_batch_size", 2, "--output_dir", data_root / "two")
    two = run_script(*other, launcher=TWO_PROCESSES)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert largest_difference(unet_of(data_root / "run"), unet_of(data_root / "two")) < 2e-5  # a fifth of one lr step
    rows_one, rows_two = (read_losses(data_root / name / "losses.csv") for name in ("run", "two"))
    assert [row[:3] for row in rows_one] == [row[:3] for row in rows_two]
    assert max(abs(a[3] - b[3]) for a, b in zip(rows_one, rows_two)) < 1e-5


def test_interleaved_refuses_several_processes(data_root, tiny_model, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--schedule staged" in error_of(train.main, train_args(data_root, tiny_model), capsys)


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_killed_and_resumed_ends_with_the_same_bits(schedule, data_root, tiny_model):
    options = ("--schedule", schedule, "--checkpointing_images", 1, "--finetune_lr", 1e-4)
    options += ("--embedding_steps", 12, "--finetune_steps", 10)
    command = [ROOT / "train.py", *train_args(data_root, tiny_model, *options)]
    whole = run_script(*command, "--output_dir", data_root / "whole")
    assert whole.returncode == 0, whole.stderr

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

    refused = run_script(*command)
    assert refused.returncode == 2 and "--resume_from_checkpoint latest" in refused.stderr
    resumed = run_script(*command, "--resume_from_checkpoint", "latest")
    assert resumed.returncode == 0, resumed.stderr
    assert largest_difference(unet_of(data_root / "whole"), unet_of(data_root / "run")) == 0
    assert (data_root / "whole" / "losses.csv").read_bytes() == (data_root / "run" / "losses.csv").read_bytes()


def newest(data_root: Path) -> int:
    """The photos' worth of work in the run's newest checkpoint."""
    return max([int(path.name[11:]) for path in run_folder.checkpoints(data_root / "run")], default=0)


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
    assert "finished run of other settings" in message and "Lambda was 0.7, is now 0.5" in message
    assert (data_root / "run" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == weights


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_stage_two_can_be_left_out(schedule, data_root, tiny_model):
    train.main(train_args(data_root, tiny_model, *SHORT, "--embedding_steps", 0, "--schedule", schedule))
    assert {row[1] for row in read_losses(data_root / "run" / "losses.csv")} == {"finetune"}


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_stage_three_can_be_left_out(schedule, data_root, tiny_model):
    train.main(train_args(data_root, tiny_model, *SHORT, "--finetune_steps", 0, "--schedule", schedule))
    assert {row[1] for row in read_losses(data_root / "run" / "losses.csv")} == {"embedding"}
    assert largest_difference(unet_of(data_root / "run"), unet_of(tiny_model)) == 0


@pytest.mark.parametrize("schedule", ["interleaved", "staged"])
def test_memory_and_speed_options(schedule, data_root, tiny_model, fresh_accelerate, monkeypatch):
    """Gradient checkpointing and torch.compile change nothing beyond rounding, bf16 little."""
    checkpointed, compiled = [], []
    enable = UNet2DConditionModel.enable_gradient_checkpointing
    monkeypatch.setattr(
        UNet2DConditionModel, "enable_gradient_checkpointing", lambda unet: [checkpointed.append(unet), enable(unet)]
    )
    # The compiler itself takes half a minute here; what it makes is torch's business.
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)

    arguments = train_args(data_root, tiny_model, *SHORT, "--schedule", schedule)
    train.main(arguments)
    assert not checkpointed and not compiled
    train.main([*arguments, "--gradient_checkpointing", "--compile", "--output_dir", str(data_root / "gc")])
    assert checkpointed[0].is_gradient_checkpointing and compiled[0] is checkpointed[0]
    fresh_accelerate()
    tracked = ["--mixed_precision", "bf16", "--report_to", "tensorboard"]
    train.main([*arguments, *tracked, "--output_dir", str(data_root / "bf")])
    losses = [np.array([row[3] for row in read_losses(data_root / run / "losses.csv")]) for run in ("run", "gc", "bf")]
    assert np.abs(losses[0] - losses[1]).max() < 1e-5
    assert 0 < np.abs(losses[0] - losses[2]).max() < 0.05
    assert list((data_root / "bf" / "logs").rglob("events.out.tfevents*"))


def test_8bit_adam_is_bitsandbytes(data_root, tiny_model, monkeypatch):
    """bitsandbytes is optional and needs a GPU to be of use: a stand-in records how it is called."""
    made = []

    class Adam8bit(torch.optim.Adam):
        def __init__(self, parameters, lr):
            super().__init__(parameters, lr=lr)
            made.append(lr)

    module = types.ModuleType("bitsandbytes.optim")
    module.Adam8bit = Adam8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda _: True)
    train.main(train_args(data_root, tiny_model, *SHORT, "--use_8bit_adam"))
    assert made == [1e-4] * 4  # a new one for every photo


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(data_root, tiny_model, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    room = iter([10**12, 10**12, 10**12, 0, 0])  # at the start, for two checkpoints, then none
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, next(room, 10**12)))
    train.main(train_args(data_root, tiny_model, *SHORT, "--checkpointing_images", 1))
    output = capsys.readouterr().out
    assert "checkpoint-3: not saved, disk too full" in output and "the last good one is checkpoint-2" in output
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["status"] == "finished"

    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, 1000))
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
    assert files_under(data_root / "run") <= {"hand1000.json", "losses.csv", ".lock"}
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["status"] == UNFINISHED


def test_stage_one_runs_first_where_its_file_is_missing(tmp_path, tiny_model, capfd):
    from captioning import enrich
    from synthetic_hands.drawn import write_photos

    write_photos(tmp_path, "palm", 3)
    enrich.main(["--gesture", "palm", "--captioner", "drawn", "--backend", "rule", "--data_root", str(tmp_path)])
    train.main([*train_args(tmp_path, tiny_model, *SHORT), "--captioner", "drawn"])
    assert np.load(tmp_path / "palm.npy").shape == (63,)
    assert "mean of 3 hands; 0 of 3 photos had no hand" in capfd.readouterr().out


# Mistakes: one line each, status 2, nothing written


def rename(data_root: Path, name: str) -> None:
    (data_root / name).rename(data_root / "elsewhere")


def damage(data_root: Path) -> None:
    photo = data_root / "palm" / "photo2.png"
    photo.write_bytes(photo.read_bytes()[:500])


def relist(names: list[str]):
    return lambda data_root: write_lists(data_root, names, ["a hand"] * 2)


MISTAKES = {
    "no folder": (lambda d: rename(d, "palm"), (), "palm: no such folder"),
    "no list": (lambda d: rename(d, "palm_BLIP2_file_name.txt"), (), "palm_BLIP2_file_name.txt: no such file"),
    "no captions": (lambda d: rename(d, "palm_BLIP2_modified.txt"), (), "palm_BLIP2_modified.txt: no such file"),
    "lengths": (
        lambda d: write_lists(d, ["photo0.png", "photo1.png"], ["a hand"]),
        (),
        r"palm_BLIP2_file_name.txt has 2 lines but .*palm_BLIP2_modified.txt has 1",
    ),
    "photo gone": (relist(["photo0.png", "gone.png"]), (), r"palm/gone.png: listed in .*but not there"),
    "absolute": (relist(["photo0.png", "/etc/passwd"]), (), "line 2: '/etc/passwd' leaves its folder"),
    "parent": (relist(["photo0.png", "../secret.png"]), (), r"line 2: '\.\./secret.png' leaves its folder"),
    "twice": (relist(["photo0.png", "photo0.png"]), (), "line 2: 'photo0.png' is already on line 1"),
    "empty line": (relist(["photo0.png", "", "photo1.png"]), (), "line 2 is empty"),
    "truncated": (damage, (), r"photo2.png: not a readable image .*--skip_bad_images"),
    "feature shape": (lambda d: np.save(d / "palm.npy", np.zeros(62)), (), r"a gesture feature is 63 numbers.*\(62,\)"),
    "feature nan": (lambda d: np.save(d / "palm.npy", np.full(63, np.nan)), (), "palm.npy: holds NaN"),
    "feature text": (lambda d: (d / "palm.npy").write_text("no"), (), "palm.npy: not a .npy array"),
    "Lambda": (None, ("--Lambda", "1.2"), "1.2 is outside 0 to 1"),
    "batch": (None, ("--train_batch_size", "2"), "--train_batch_size needs --schedule staged"),
    "resolution": (None, ("--resolution", "30"), "--resolution 30 is not a multiple of 8"),
    "model": (None, ("--pretrained_model_name_or_path", "./nowhere"), r"\./nowhere: no such folder"),
    "model file": (None, ("--pretrained_model_name_or_path", "sd.ckpt"), "sd.ckpt: no such checkpoint file"),
    "checkpoint": (None, ("--resume_from_checkpoint", "nothing"), "nothing: not a checkpoint of train.py"),
    "fusion": (None, ("--fusion_checkpoint", "no.safetensors"), "no.safetensors: no such file"),
    "same file": (relist(["photo0.png", "./photo0.png"]), (), "'./photo0.png' is already on line 1"),
    "gesture": (None, ("--gesture", "../palm"), "'../palm' is no plain name"),
    "rate": (None, ("--finetune_lr=-0.1",), "-0.1 is no learning rate"),
    "tracker": (None, ("--report_to", "tensorbord"), "--report_to tensorbord: not a tracker"),
    "fp16": (None, ("--mixed_precision", "fp16"), "fp16 needs a GPU"),
    "8bit": (None, ("--use_8bit_adam",), "pip install bitsandbytes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, data_root, tiny_model, capsys, monkeypatch):
    if mistake == "8bit":
        monkeypatch.setattr(train.importlib.util, "find_spec", lambda _: None)
    prepare, options, expected = MISTAKES[mistake]
    if prepare:
        prepare(data_root)
    before = files_under(data_root)
    message = error_of(train.main, train_args(data_root, tiny_model, *options), capsys)
    assert re.search(expected, message), message
    assert files_under(data_root) == before


def test_a_failed_start_does_not_lock_its_folder(data_root, tiny_model, capsys):
    """A loss of NaN before the first checkpoint: the advice to lower the rate can be followed."""
    wild = train_args(data_root, tiny_model, *SHORT, "--finetune_lr", "1e30")
    message = error_of(train.main, wild, capsys)
    assert "the loss became" in message and "lower the learning rate" in message
    train.main(train_args(data_root, tiny_model, *SHORT))


def test_two_trainings_do_not_share_a_folder(data_root, tiny_model, capsys):
    with run_folder.locked(data_root / "run"):
        message = error_of(train.main, train_args(data_root, tiny_model, *SHORT), capsys)
    assert "another training is under way there" in message and files_under(data_root / "run") == {".lock"}
    train.main(train_args(data_root, tiny_model, *SHORT))


def test_a_run_that_ended_while_the_model_was_loading_is_not_overwritten(data_root, tiny_model, capsys, monkeypatch):
    load = train.load_base_model

    def load_while_another_run_ends(args):
        monkeypatch.setattr(train, "load_base_model", load)
        train.main(train_args(data_root, tiny_model, *SHORT, "--Lambda", 0.2))
        return load(args)

    monkeypatch.setattr(train, "load_base_model", load_while_another_run_ends)
    message = error_of(train.main, train_args(data_root, tiny_model, *SHORT), capsys)
    assert "finished run of other settings (Lambda was 0.2, is now 0.7)" in message
    assert json.loads((data_root / "run" / "hand1000.json").read_text())["settings"]["Lambda"] == 0.2


def test_a_model_that_the_hub_does_not_give(data_root, capsys, monkeypatch):
    from diffusers import StableDiffusionPipeline

    def offline(*args, **kwargs):
        raise OSError("a long story of the hub client")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", offline)
    message = error_of(train.main, train_args(data_root, "someone/some-model"), capsys)
    assert "can't be reached (OSError); pass the folder or the .ckpt of a downloaded model" in message


def test_other_weights_under_the_same_name_are_another_run(data_root, tiny_model, capsys):
    fusion = data_root / "fusion.safetensors"
    arguments = train_args(data_root, tiny_model, *SHORT, "--fusion_checkpoint", fusion)
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(torch.nn.Linear(77 * 32 + 63, 77 * 32).state_dict(), fusion)
        if seed == 0:
            train.main(arguments)
    assert "fusion_fingerprint was" in error_of(train.main, arguments, capsys)


def test_fusion_weights_of_another_model_are_refused_before_encoding(data_root, tiny_model, capsys):
    fusion = data_root / "fusion.safetensors"
    save_file({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}, fusion)
    message = error_of(train.main, train_args(data_root, tiny_model, "--fusion_checkpoint", fusion), capsys)
    assert "don't fit this text encoder, which needs (2464, 2527) and (2464,)" in message
    assert not (data_root / "run").exists()


def test_no_hand_in_any_photo(data_root, tiny_model, capsys):
    (data_root / "palm.npy").unlink()
    before = files_under(data_root)
    assert "found no hand in any of its 8 photos" in error_of(train.main, train_args(data_root, tiny_model), capsys)
    assert files_under(data_root) == before


def test_bad_images_can_be_skipped(data_root, tiny_model, capsys):
    damage(data_root)
    train.main(train_args(data_root, tiny_model, *SHORT, "--skip_bad_images"))
    assert "photo2.png" in capsys.readouterr().out
    names = {row[0] for row in read_losses(data_root / "run" / "losses.csv")}
    assert names == {"photo0.png", "photo1.png", "photo3.png"}


def test_files_that_are_no_run_and_damaged_checkpoints(data_root, tiny_model, capsys):
    run = data_root / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("my only copy")
    assert "no training run" in error_of(train.main, train_args(data_root, tiny_model), capsys)
    assert files_under(run) == {"thesis.txt"}
    shutil.rmtree(run)

    train.main(train_args(data_root, tiny_model, *SHORT, "--checkpointing_images", 4))
    record = json.loads((run / "hand1000.json").read_text())
    (run / "hand1000.json").write_text(json.dumps({**record, "status": UNFINISHED}))
    weights = run / "checkpoints" / "checkpoint-4" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    resume = train_args(data_root, tiny_model, *SHORT, "--resume_from_checkpoint", "latest")
    assert "checkpoint-4: damaged checkpoint" in error_of(train.main, resume, capsys)
    other = train_args(data_root, tiny_model, *SHORT, "--resume_from_checkpoint", "latest", "--seed", 1)
    assert "seed was 0, is now 1" in error_of(train.main, other, capsys)
