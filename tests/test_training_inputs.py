"""What train.py reads: Stage I where its file is missing, and a mistake in any input ends in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PHRASE, error_of, files_under, train_args, write_lists
from safetensors.torch import save_file
from trainings import SHORT, losses_of

import train


def test_stage_one_runs_first_where_its_file_is_missing(tmp_path, tiny_model, capfd):
    from synthetic_hands.drawn import write_photos

    write_photos(tmp_path, "palm", 3)
    write_lists(tmp_path, [f"palm_{index:03d}.png" for index in range(3)], [f"a hand {PHRASE}"] * 3)
    train.main(train_args(tmp_path, tiny_model, *SHORT))
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
    "scheduler": (None, ("--lr_scheduler", "linear"), "--lr_scheduler linear needs --schedule staged"),
    "batch": (None, ("--train_batch_size", "2"), "--train_batch_size needs --schedule staged"),
    "resolution": (None, ("--resolution", "30"), "--resolution 30 is not a multiple of 8"),
    "model": (None, ("--pretrained_model_name_or_path", "./nowhere"), r"\./nowhere: no such folder"),
    "model file": (None, ("--pretrained_model_name_or_path", "sd.ckpt"), "sd.ckpt: no such checkpoint file"),
    "checkpoint": (None, ("--resume_from_checkpoint", "nothing"), "checkpoints/nothing: no such checkpoint"),
    "fusion": (None, ("--fusion_checkpoint", "no.safetensors"), "no.safetensors: no such file"),
    "same file": (relist(["photo0.png", "./photo0.png"]), (), "'./photo0.png' is already on line 1"),
    "gesture": (None, ("--gesture", "../palm"), "'../palm' is not a plain name"),
    "rate": (None, ("--finetune_lr=-0.1",), "-0.1 is not a learning rate"),
    "tracker": (None, ("--report_to", "tensorbord"), "--report_to tensorbord: not a tracker"),
    "fp16": (None, ("--mixed_precision", "fp16"), "fp16 needs a GPU"),
    "8bit": (None, ("--use_8bit_adam",), "pip install bitsandbytes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, data_root, tiny_model, capsys, monkeypatch):
    if mistake == "8bit":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    prepare, options, expected = MISTAKES[mistake]
    if prepare:
        prepare(data_root)
    before = files_under(data_root)
    message = error_of(train.main, train_args(data_root, tiny_model, *options), capsys)
    assert re.search(expected, message), message
    assert files_under(data_root) == before


def test_interleaved_refuses_several_processes(data_root, tiny_model, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--schedule staged" in error_of(train.main, train_args(data_root, tiny_model), capsys)


def test_a_model_that_the_hub_does_not_give(data_root, capsys, monkeypatch):
    from diffusers import StableDiffusionPipeline

    def offline(*args, **kwargs):
        raise OSError("a long story of the hub client")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", offline)
    message = error_of(train.main, train_args(data_root, "someone/some-model"), capsys)
    assert (
        "the hub cannot be reached (https://huggingface.co); pass the folder or the .ckpt of a downloaded model"
        in message
    )


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
    assert "found no hand in its 8 photos" in error_of(train.main, train_args(data_root, tiny_model), capsys)
    assert files_under(data_root) == before


def test_bad_images_can_be_skipped(data_root, tiny_model, capsys):
    damage(data_root)
    train.main(train_args(data_root, tiny_model, *SHORT, "--skip_bad_images"))
    assert "photo2.png" in capsys.readouterr().out
    names = {row[0] for row in losses_of(data_root / "run")}
    assert names == {"photo0.png", "photo1.png", "photo3.png"}
