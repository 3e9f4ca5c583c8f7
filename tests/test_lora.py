"""`--lora_rank`: what is trained, what is written, and that merged, unmerged and literal W + B A are the same model."""

import shutil

import numpy as np
import pytest
import torch
from conftest import error_of, train_args
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from trainings import SHORT, largest_difference, unet_of

import hand1000.checkpoints
import image_generation
import train
from core.diffusion.stable_diffusion import load_stable_diffusion
from hand1000.generation import load_model
from hand1000.lora import add_lora, lora_weights
from hand1000.trained import LORA_FILE, model_to_load, read_trained_model


@pytest.fixture(scope="module")
def lora_data(tmp_path_factory):
    from conftest import small_data

    return small_data(tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def lora_run(lora_data, tiny_model):
    """A run of the paper's order with a LoRA of rank 4. Never write to it."""
    train.main([*train_args(lora_data, tiny_model, *SHORT, "--schedule", "staged"), "--lora_rank", "4"])
    return lora_data / "run"


def loaded(run, base_model=None):
    trained = read_trained_model(run)
    return load_model(str(run), model_to_load(str(run), trained, base_model and str(base_model)))


def test_the_run_folder_holds_a_lora_and_no_model(lora_run, tiny_model):
    assert {path.name for path in lora_run.iterdir()} >= {LORA_FILE, "losses.csv", "hand1000.json"}
    assert not list(lora_run.glob("unet*")) and not (lora_run / "model_index.json").exists()
    weights = load_file(lora_run / LORA_FILE)
    assert all(weight.dtype == torch.float32 and 4 in weight.shape for weight in weights.values())
    assert all(weight.abs().max() > 0 for name, weight in weights.items() if "lora.up" in name)


def test_merged_unmerged_and_literal_are_the_same(lora_run, tiny_model):
    base = unet_of(tiny_model)
    literal = {name: weight.clone() for name, weight in base.items()}
    lora = load_file(lora_run / LORA_FILE)
    for name, down in lora.items():
        if "lora.down" in name:
            literal[name.removeprefix("unet.").replace(".lora.down", "")] += (
                lora[name.replace("lora.down", "lora.up")] @ down
            )
    merged = loaded(lora_run).unet
    assert merged.state_dict().keys() == base.keys()  # no trace of peft is left
    assert largest_difference(merged.state_dict(), base) > 0
    assert largest_difference(merged.state_dict(), literal) < 1e-6

    unmerged = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    unmerged.load_lora_weights(lora_run)  # as a user of plain diffusers does
    generator = torch.Generator().manual_seed(0)
    latents, embeds = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, 32, generator=generator)
    with torch.no_grad():
        ours, theirs = (unet(latents, torch.tensor([10, 900]), embeds).sample for unet in (merged, unmerged.unet))
    assert (ours - theirs).abs().max() < 1e-5


def test_at_first_nothing_changes_and_only_the_lora_is_trained(tiny_model):
    pipe = load_stable_diffusion(str(tiny_model))
    latents, embeds = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 32)
    before = pipe.unet(latents, 5, embeds).sample
    random_numbers = torch.random.get_rng_state()
    add_lora(pipe.unet, 8, seed=1)
    assert torch.equal(torch.random.get_rng_state(), random_numbers)
    assert torch.allclose(pipe.unet(latents, 5, embeds).sample, before, atol=1e-6)
    lora, others = lora_weights(pipe.unet), load_stable_diffusion(str(tiny_model))
    attentions = sum(name.endswith(("to_q.weight", "to_out.0.weight")) for name in unet_of(tiny_model))
    assert len(lora) == 2 * 2 * attentions  # queries, keys, values and output, A and B of each
    assert {name for name, weight in pipe.unet.named_parameters() if weight.requires_grad} == lora.keys()
    add_lora(others.unet, 8, seed=1)
    assert all(torch.equal(weight, lora[name]) for name, weight in lora_weights(others.unet).items())


def test_it_draws_like_the_merged_model(lora_run, lora_data, tiny_model, tmp_path):
    whole = shutil.copytree(lora_run, tmp_path / "whole")
    loaded(lora_run).save_pretrained(whole)
    record = (whole / "hand1000.json").read_text()
    (whole / "hand1000.json").write_text(record.replace('"lora_rank": 4', '"lora_rank": null'))
    for run, folder in ((lora_run, "a"), (whole, "b")):
        image_generation.main(
            f"--prompt hand --mu 0.3 --feature_npy_path {lora_data / 'palm.npy'} --ckpt {run} --num_inference_steps 2 "
            f"--img_save_path {tmp_path / folder}".split()
        )
    first, second = (np.asarray(Image.open(tmp_path / folder / "prompt_000.png"), int) for folder in "ab")
    assert np.abs(first - second).max() <= 1


@pytest.mark.parametrize("checkpoints", [2, 6], ids=["in Stage II", "in Stage III"])
def test_stopped_and_resumed_ends_with_the_same_bits(
    checkpoints, lora_run, lora_data, tiny_model, tmp_path, monkeypatch
):
    written = []

    def save_and_stop(*args, **options):
        save_checkpoint(*args, **options)
        written.append(args)
        if len(written) == checkpoints:
            raise KeyboardInterrupt

    save_checkpoint = hand1000.checkpoints.save_checkpoint
    command = [*train_args(lora_data, tiny_model, *SHORT, "--schedule", "staged"), "--lora_rank", "4"]
    command += ["--checkpointing_images", "1", "--output_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(hand1000.checkpoints, "save_checkpoint", save_and_stop)
        train.main(command)
    assert len(written) == checkpoints and not (tmp_path / "run" / LORA_FILE).exists()
    train.main([*command, "--resume_from_checkpoint", "latest"])
    assert (tmp_path / "run" / LORA_FILE).read_bytes() == (lora_run / LORA_FILE).read_bytes()
    assert (tmp_path / "run" / "losses.csv").read_bytes() == (lora_run / "losses.csv").read_bytes()


def test_half_the_memory_in_bf16(lora_data, tiny_model, tmp_path, fresh_accelerate):
    """The frozen weights are bf16, what is trained float32."""
    fresh_accelerate()
    options = [*train_args(lora_data, tiny_model, *SHORT), "--lora_rank", "2", "--mixed_precision", "bf16"]
    train.main([*options, "--output_dir", str(tmp_path / "run")])
    weights = load_file(tmp_path / "run" / LORA_FILE)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora.up" in name)
    unet = load_stable_diffusion(str(tiny_model)).unet
    add_lora(unet, 2, seed=0, mixed_precision="bf16")
    dtypes = {name: weight.dtype for name, weight in unet.named_parameters()}
    assert {dtypes.pop(name) for name in lora_weights(unet)} == {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}


def test_mistakes(lora_run, lora_data, tiny_model, run_folder, tmp_path, capsys):
    command = train_args(lora_data, tiny_model, *SHORT, "--lora_rank", 4, "--save_single_file")
    assert "with --lora_rank there is none: leave it out" in error_of(train.main, command, capsys)

    draw = f"--prompt hand --mu 1 --img_save_path {tmp_path / 'pictures'} --num_inference_steps 2 --ckpt".split()
    other = shutil.copytree(tiny_model, tmp_path / "other")
    weights = load_file(other / "unet" / "diffusion_pytorch_model.safetensors")
    save_file(
        {name: weight + 1 for name, weight in weights.items()}, other / "unet/diffusion_pytorch_model.safetensors"
    )
    changed = [*draw, str(lora_run), "--pretrained_model_name_or_path", str(other)]
    assert f"trained on another base model than {other} is now" in error_of(image_generation.main, changed, capsys)

    moved = shutil.copytree(lora_run, tmp_path / "moved")
    record = (moved / "hand1000.json").read_text()
    (moved / "hand1000.json").write_text(record.replace(str(tiny_model), "/nowhere/model"))
    error = error_of(image_generation.main, [*draw, str(moved)], capsys)
    assert error.endswith(f"it is the base model of {moved}: see --pretrained_model_name_or_path")
    image_generation.main([*draw, str(moved), "--pretrained_model_name_or_path", str(tiny_model)])

    whole = [*draw, str(run_folder), "--pretrained_model_name_or_path", str(tiny_model)]
    assert f"{run_folder} is a whole model" in error_of(image_generation.main, whole, capsys)
    (moved / LORA_FILE).write_bytes(b"no weights")
    (tmp_path / "pictures" / "prompt_000.png").unlink()
    damaged = [*draw, str(moved), "--pretrained_model_name_or_path", str(tiny_model)]
    assert f"{moved / LORA_FILE}: not a LoRA of this base model" in error_of(image_generation.main, damaged, capsys)
