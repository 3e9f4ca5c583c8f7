"""Stable Diffusion 1.x as one CompVis-style file, for the programs that want it.

diffusers reads such files but does not write them. The rules below rename its tensors; reading the file back through
diffusers' own converter gives the same bits (tested).
"""

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from core.runs.errors import UserError
from core.runs.files import atomic_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def check_convertible(pipe: StableDiffusionPipeline) -> None:
    """Raises UserError where the model is not of Stable Diffusion 1's kind (2.x keeps its text encoder otherwise)."""
    if pipe.unet.config.use_linear_projection or pipe.unet.config.addition_embed_type:
        raise UserError("--save_single_file writes Stable Diffusion 1.x only; this base model is of another kind")


def save_single_file(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Write all weights to one safetensors file under CompVis's names, atomically."""
    with atomic_file(path) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in compvis_tensors(pipe).items()}, temporary)


def compvis_tensors(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """All weights under CompVis's names.

    Raises:
        UserError: a tensor that Stable Diffusion 1.x does not have.
    """
    return {
        **{f"model.diffusion_model.{unet_name(k, pipe.unet.config)}": v for k, v in pipe.unet.state_dict().items()},
        **{f"first_stage_model.{vae_name(k, pipe.vae.config)}": v for k, v in vae_tensors(pipe.vae).items()},
        **{f"cond_stage_model.transformer.{text_name(k)}": v for k, v in pipe.text_encoder.state_dict().items()},
    }


def unet_name(name: str, config) -> str:
    """CompVis's name, after `model.diffusion_model.`, of a diffusers UNet tensor.

    CompVis numbers all blocks through: each level has `layers_per_block` on the way down, one more on the way up, and
    each down/upsampler comes after its level.
    """
    module, _, rest = name.rpartition(".")
    if module in UNET_ENDS:
        return f"{UNET_ENDS[module]}.{rest}"
    per_level = config.layers_per_block + 1
    if match := re.fullmatch(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)", name):
        level, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * per_level}.0.{rest.replace('conv', 'op')}"
        return f"input_blocks.{level * per_level + layer + 1}.{_layer(kind, rest)}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.+)", name):
        level, kind, layer, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "upsamplers":
            place = 2 if "Attn" in config.up_block_types[level] else 1
            return f"output_blocks.{(level + 1) * per_level - 1}.{place}.{rest}"
        return f"output_blocks.{level * per_level + layer}.{_layer(kind, rest)}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, layer, rest = match[1], int(match[2]), match[3]
        return f"middle_block.{2 * layer + (kind == 'attentions')}.{_layer(kind, rest).partition('.')[2]}"
    raise UserError(f"the UNet's tensor {name} has no place in a Stable Diffusion 1.x file")


def _layer(kind: str, rest: str) -> str:
    """`0.` and the resnet's inner name, or `1.` and the attention's, which is the same in both."""
    if kind == "attentions":
        return f"1.{rest}"
    module, _, parameter = rest.rpartition(".")
    return f"0.{RESNET[module]}.{parameter}"


def vae_name(name: str, config) -> str:
    """CompVis's name, after `first_stage_model.`, of a diffusers VAE tensor."""
    last = len(config.block_out_channels) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    # CompVis counts the decoder's levels from the output.
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{last - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(
        r"mid_block\.attentions\.0\.(.+)\.(weight|bias)", lambda m: f"mid.attn_1.{VAE_ATTENTION[m[1]]}.{m[2]}", name
    )
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def vae_tensors(vae) -> dict[str, torch.Tensor]:
    """The VAE's tensors, its attention's linear layers as the 1x1 convolutions that CompVis has there."""
    return {
        name: value[:, :, None, None] if "attentions" in name and value.ndim == 2 else value
        for name, value in vae.state_dict().items()
    }


def text_name(name: str) -> str:
    """transformers dropped the `text_model.` of CLIP's names in version 5.6; CompVis's files keep it."""
    return name if name.startswith("text_model.") else f"text_model.{name}"
