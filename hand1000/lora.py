"""Stage III on a LoRA (Hu et al. 2022) in place of all of the UNet's weights: `train.py --lora_rank`.

Each attention matrix W (of queries, keys, values and the output) becomes W + B A, where A (rank × in) and B
(out × rank) are trained and W is frozen. The run folder then holds pytorch_lora_weights.safetensors, in diffusers' own
format, and not a whole model:

    pipe = StableDiffusionPipeline.from_pretrained("CompVis/stable-diffusion-v1-4")
    pipe.load_lora_weights("output/call")
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from core.diffusion.noise import derived_seed
from core.diffusion.stable_diffusion import WEIGHT_DTYPES
from core.runs.errors import UserError, reason_of
from hand1000.draws import LORA
from hand1000.trained import LORA_FILE

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]  # as in diffusers' text-to-image LoRA example


def add_lora(unet: UNet2DConditionModel, rank: int, *, seed: int, mixed_precision: str = "no") -> None:
    """Put a LoRA beside the attention matrices: A normal with deviation 1 / rank, B zero, so that nothing changes yet.

    Args:
        rank: of B A; its scale is 1 (alpha = rank).
        seed: of A, drawn on the CPU.
        mixed_precision: the frozen weights are kept in this arithmetic's precision, A and B in float32.
    """
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, LORA))
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))
    unet.to(WEIGHT_DTYPES[mixed_precision])
    for weight in lora_weights(unet).values():
        weight.data = weight.data.float()


def lora_weights(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The matrices A and B of a UNet; none where it has no LoRA."""
    return {name: weight for name, weight in unet.named_parameters() if ".lora_" in name}


def trained_weights(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What Stage III trains: the LoRA, or where there is none all weights."""
    return lora_weights(unet) or dict(unet.named_parameters())


def save_lora(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the LoRA as diffusers does."""
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=LORA_FILE)


def merge_lora(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Load a run's LoRA and add it to the UNet's weights, W + B A: then the UNet is as fast as without it.

    Raises:
        UserError: there is none, or that of another model.
    """
    try:
        pipe.load_lora_weights(folder, weight_name=LORA_FILE)
        pipe.fuse_lora(components=["unet"])
        pipe.unload_lora_weights()
    except Exception as error:  # diffusers, peft and safetensors raise a dozen kinds
        raise UserError(f"{folder / LORA_FILE}: not a LoRA of this base model ({reason_of(error)})") from None
