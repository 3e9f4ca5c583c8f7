"""Single-file checkpoints in and out: CompVis layout, EMA weights, Lightning leftovers, a released checkpoint."""

import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from conftest import copy_model, error_of, generate_args, pixels, train_args
from safetensors.torch import load_file, save_file
from trainings import finish_run

import image_generation
import train
from core.diffusion.single_file import save_single_file
from core.diffusion.stable_diffusion import load_stable_diffusion


@pytest.fixture(scope="module")
def single_file(tiny_model, tmp_path_factory) -> Path:
    """The tiny model in CompVis's layout."""
    path = tmp_path_factory.mktemp("single") / "tiny.safetensors"
    save_single_file(load_stable_diffusion(str(tiny_model)), path)
    return path


@pytest.fixture(scope="module")
def original_config(tmp_path_factory) -> Path:
    """The YAML that CompVis would have for the tiny model."""
    unet = {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 64,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "attention_resolutions": [1],
        "num_heads": 4,
        "transformer_depth": 1,
        "context_dim": 32,
    }
    vae = {"in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "z_channels": 4}
    config = {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "scale_factor": 0.18215,
                "unet_config": {"params": unet},
                "first_stage_config": {"params": {"ddconfig": vae}},
            },
        }
    }
    path = tmp_path_factory.mktemp("config") / "v1-tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def assert_same_weights(pipe, folder: Path) -> None:
    expected = load_stable_diffusion(str(folder))
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(pipe, part).state_dict(), getattr(expected, part).state_dict()
        assert ours.keys() == theirs.keys(), part
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), part


def test_round_trip_through_diffusers_own_converter(single_file, tiny_model):
    assert_same_weights(load_stable_diffusion(str(single_file), config=str(tiny_model)), tiny_model)


def test_original_config_gives_the_architecture(single_file, original_config, tiny_model):
    pipe = load_stable_diffusion(str(single_file), original_config=str(original_config), config=str(tiny_model))
    assert_same_weights(pipe, tiny_model)
    assert pipe.vae.config.scaling_factor == 0.18215


def test_names_are_compvis_names(single_file):
    """Names by hand, from CompVis's modules: a level's last resnet has its upsampler behind the attention."""
    names = load_file(single_file)
    for name in (
        "model.diffusion_model.time_embed.0.weight",
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.2.0.op.weight",
        "model.diffusion_model.input_blocks.3.0.skip_connection.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.middle_block.2.out_layers.3.weight",
        "model.diffusion_model.output_blocks.1.1.conv.weight",
        "model.diffusion_model.output_blocks.3.1.proj_out.weight",
        "model.diffusion_model.out.2.bias",
        "first_stage_model.encoder.down.0.downsample.conv.weight",
        "first_stage_model.encoder.down.2.block.0.nin_shortcut.weight",
        "first_stage_model.decoder.up.2.upsample.conv.weight",
        "first_stage_model.decoder.mid.attn_1.proj_out.weight",
        "first_stage_model.quant_conv.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight",
    ):
        assert name in names, name
    assert names["first_stage_model.decoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)


def test_a_full_size_unet_has_every_compvis_name():
    """Stable Diffusion 1's own block structure: 12 input and 12 output blocks, upsamplers in both places."""
    from core.diffusion.single_file import unet_name

    config = types.SimpleNamespace(
        layers_per_block=2,
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    )
    for ours, theirs in {
        "down_blocks.2.downsamplers.0.conv.weight": "input_blocks.9.0.op.weight",
        "down_blocks.3.resnets.1.conv1.weight": "input_blocks.11.0.in_layers.2.weight",
        "up_blocks.0.upsamplers.0.conv.bias": "output_blocks.2.1.conv.bias",
        "up_blocks.2.upsamplers.0.conv.bias": "output_blocks.8.2.conv.bias",
        "up_blocks.3.attentions.2.norm.weight": "output_blocks.11.1.norm.weight",
    }.items():
        assert unet_name(ours, config) == theirs


def lightning_checkpoint(single_file: Path, path: Path, **more) -> Path:
    """A pickle as CompVis's training wrote it: a callback object of PyTorch Lightning beside the weights."""
    module = types.ModuleType("pytorch_lightning_of_2022")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__, "monitor": "val/loss"})
    module.ModelCheckpoint = callback
    sys.modules[module.__name__] = module
    try:
        torch.save({"state_dict": load_file(single_file), "callbacks": {callback: callback()}, **more}, path)
    finally:
        del sys.modules[module.__name__]
    return path


def test_pickles_with_foreign_classes_are_read_without_running_them(single_file, tiny_model, tmp_path):
    path = lightning_checkpoint(single_file, tmp_path / "sd-v1-4-full-ema.ckpt")
    assert_same_weights(load_stable_diffusion(str(path), config=str(tiny_model)), tiny_model)


def test_raw_weights_are_taken_not_ema(single_file, tiny_model, tmp_path):
    raw = load_file(single_file)
    ema = {f"model_ema.{name[6:].replace('.', '')}": value + 1 for name, value in raw.items() if name[:6] == "model."}
    assert len(ema) > 100
    torch.save({"state_dict": {**raw, **ema}}, tmp_path / "full-ema.ckpt")
    assert_same_weights(load_stable_diffusion(str(tmp_path / "full-ema.ckpt"), config=str(tiny_model)), tiny_model)


def test_training_from_a_single_file_and_writing_one(single_file, original_config, tiny_model, data_root):
    options = ("--max_train_images", 2, "--embedding_steps", 1, "--finetune_steps", 1)
    train.main(train_args(data_root, tiny_model, *options))
    from_file = train_args(data_root, single_file, *options, "--save_single_file", "--config", tiny_model)
    train.main([*from_file, "--original_config", str(original_config), "--output_dir", str(data_root / "other")])
    ours, theirs = (load_stable_diffusion(str(data_root / name)).unet.state_dict() for name in ("other", "run"))
    assert max((ours[key] - theirs[key]).abs().max() for key in theirs) < 2e-6  # memory is laid out otherwise
    written = load_stable_diffusion(str(data_root / "other" / "palm.safetensors"), config=str(tiny_model))
    assert_same_weights(written, data_root / "other")


def test_a_released_checkpoint_generates_with_its_own_fusion(single_file, tiny_model, data_root):
    """model_finetuned.ckpt = state_dict + fusion_model_state_dict: the same pictures as a run with those weights."""
    torch.manual_seed(3)
    fusion = torch.nn.Linear(77 * 32 + 63, 77 * 32)
    released = data_root / "model_finetuned.ckpt"
    torch.save({"state_dict": load_file(single_file), "fusion_model_state_dict": fusion.state_dict()}, released)
    run = finish_run(copy_model(tiny_model, data_root / "run"))
    options = ("--num_images", 2, "--num_inference_steps", 3, "--mu", 0.3)
    image_generation.main(generate_args(data_root, run, data_root / "a", *options))
    image_generation.main(generate_args(data_root, released, data_root / "b", *options, "--config", tiny_model))
    for i in range(2):
        difference = abs(pixels(data_root / f"a/photo{i}.png") - pixels(data_root / f"b/photo{i}.png"))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.002


def test_fusion_weights_of_a_run_travel_with_it(tiny_model, data_root):
    torch.manual_seed(3)
    save_file(torch.nn.Linear(77 * 32 + 63, 77 * 32).state_dict(), data_root / "given.safetensors")
    options = ("--max_train_images", 1, "--embedding_steps", 1, "--finetune_steps", 1)
    train.main(train_args(data_root, tiny_model, *options, "--fusion_checkpoint", data_root / "given.safetensors"))
    (data_root / "given.safetensors").unlink()
    few = ("--num_images", 1, "--num_inference_steps", 2)
    image_generation.main(generate_args(data_root, data_root / "run", data_root / "out", *few))
    assert pixels(data_root / "out" / "photo0.png").std() > 0


def test_files_that_are_no_stable_diffusion(tiny_model, single_file, data_root, capsys):
    (data_root / "text.ckpt").write_text("not a checkpoint")
    (data_root / "text.safetensors").write_text("not a checkpoint")
    weights = load_file(single_file)
    save_file({"weight": torch.zeros(3)}, data_root / "other.safetensors")
    incomplete = {name: value for name, value in weights.items() if "middle_block" not in name}
    save_file(incomplete, data_root / "incomplete.safetensors")
    (data_root / "folder").mkdir()
    for name, expected in (
        ("text.ckpt", "text.ckpt: not a checkpoint that torch can read"),
        ("text.safetensors", "text.safetensors: can't load Stable Diffusion from there"),
        ("other.safetensors", "other.safetensors: can't load Stable Diffusion from there"),
        ("incomplete.safetensors", "incomplete.safetensors: "),
        ("folder", "folder: not a diffusers folder"),
    ):
        arguments = train_args(data_root, data_root / name, "--config", tiny_model)
        assert expected in error_of(train.main, arguments, capsys)
    assert not (data_root / "run").exists()
