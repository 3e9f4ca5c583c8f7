"""The fusion layer without its 14 GB: the same numbers as a stored `nn.Linear`."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.runs.errors import UserError
from hand1000.fusion import double_fusion, fuse, seeded_blocks
from hand1000.fusion_weights import save_fusion_weights

HIDDEN = 6
OUT = 77 * HIDDEN


@pytest.fixture(scope="module")
def layer() -> torch.nn.Linear:
    torch.manual_seed(3)
    return torch.nn.Linear(OUT + 63, OUT)


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 77, HIDDEN, generator=generator), torch.rand(63, generator=generator)


def slow(layer, prompt_embeds, feature) -> torch.Tensor:
    """The released layer, one prompt at a time."""
    with torch.no_grad():
        rows = [layer(torch.cat([text.flatten(), feature])) for text in prompt_embeds]
    return torch.stack(rows).view(prompt_embeds.shape)


@pytest.mark.parametrize("block_elements", [1, 7 * (OUT + 63), 2**24])
def test_a_seed_means_the_layer_that_torch_would_make_from_it(layer, inputs, block_elements):
    fused = fuse(*inputs, seed=3, block_elements=block_elements)
    assert (fused - slow(layer, *inputs)).abs().max() < 2e-6
    assert (fuse(*inputs, seed=4) - fused).abs().max() > 0.1


def test_the_drawn_weights_are_that_layers_to_the_bit(layer):
    """An identity as input reads the weight itself, whatever the block size."""
    for rows in (1, 5, OUT):
        *blocks, bias = seeded_blocks(3, OUT + 63, OUT, rows)
        assert torch.equal(torch.cat(blocks), layer.weight) and torch.equal(bias, layer.bias)


def test_one_prompt_or_many_are_the_same(inputs):
    prompt_embeds, feature = inputs
    assert (fuse(prompt_embeds[2:3], feature, seed=3)[0] - fuse(prompt_embeds, feature, seed=3)[2]).abs().max() < 2e-6


def test_weights_from_files(layer, inputs, tmp_path):
    expected = slow(layer, *inputs)
    weights = {f"fc.{key}": value for key, value in layer.state_dict().items()}
    save_file(weights, tmp_path / "fusion.safetensors")
    torch.save(weights, tmp_path / "fusion.pt")
    torch.save({"state_dict": {}, "fusion_model_state_dict": weights}, tmp_path / "model_finetuned.ckpt")
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("fusion.safetensors", "fusion.pt", "model_finetuned.ckpt", "old.pt"):
        fused = fuse(*inputs, weights_file=tmp_path / name, block_elements=1000)
        assert (fused - expected).abs().max() < 2e-6, name

    save_fusion_weights(tmp_path / "model_finetuned.ckpt", tmp_path / "copy.safetensors", HIDDEN)
    copy = load_file(tmp_path / "copy.safetensors")
    assert torch.equal(copy["weight"], layer.weight) and torch.equal(copy["bias"], layer.bias)


def test_double_fusion_weighs_the_original_text():
    text, fused = torch.full((1, 77, 2), 10.0), torch.full((1, 77, 2), 20.0)
    assert double_fusion(text, fused, 0.7).unique().tolist() == [13.0]
    assert torch.equal(double_fusion(text, fused, 1.0), text) and torch.equal(double_fusion(text, fused, 0.0), fused)


def test_files_that_are_no_fusion_weights(inputs, tmp_path):
    save_file({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}, tmp_path / "other.safetensors")
    save_file({"weight": torch.zeros(4, 5)}, tmp_path / "half.safetensors")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (
        ("other.safetensors", r"of shape \(4, 5\) and bias \(4,\) don't fit this text encoder"),
        ("half.safetensors", "holds no fusion weights"),
        ("text.ckpt", "not a checkpoint that torch can read"),
        ("text.safetensors", "not a safetensors file"),
        ("list.pt", "holds a list"),
        ("gone.pt", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            fuse(*inputs, weights_file=tmp_path / name)
