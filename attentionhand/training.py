"""What a training of AttentionHand is made of beside its loss: networks, optimizer, gradients, validation pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from torchvision.transforms.functional import to_pil_image

from attentionhand.data import Sample, views
from attentionhand.sampling import draw
from attentionhand.text_attention import layers_at
from core.diffusion.encoding import latent_shape
from core.diffusion.sampling import start_noise
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.runs.errors import UserError, reason_of
from core.runs.processes import say
from core.runs.sheets import contact_sheet, save_png

WEIGHT_DECAY = 0.01
VALIDATION_STEPS = 20  # of DDIM
SMALLEST_CELL = 200  # pixels of a validation picture in its sheet


def text_attention_unet(tas_model: str, pipe: StableDiffusionPipeline) -> UNet2DConditionModel:
    """The frozen UNet of the text attention stage: that of `pipe` where `tas_model` is "shared".

    Raises:
        UserError: it does not fit the base model, or has no cross-attention at a quarter of the latents' side.
    """
    unet = pipe.unet if tas_model == "shared" else load_stable_diffusion(tas_model).unet
    ours, theirs = pipe.unet.config, unet.config
    if (ours.in_channels, ours.cross_attention_dim) != (theirs.in_channels, theirs.cross_attention_dim):
        raise UserError(
            f"{tas_model}: latents of {theirs.in_channels} channels, {theirs.cross_attention_dim} numbers a "
            f"token; the base model has {ours.in_channels} and {ours.cross_attention_dim}; try --tas_model shared"
        )
    if not layers_at(unet, level=2):
        raise UserError(f"{tas_model}: has no cross-attention at a quarter of the latents' side; pass --no_tas")
    return unet


def decoder_of(unet: UNet2DConditionModel) -> torch.nn.ModuleList:
    """The UNet's way up and its output, which --sd_unlocked trains."""
    return torch.nn.ModuleList([unet.up_blocks, unet.conv_norm_out, unet.conv_out])


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], lr: float, *, use_8bit_adam: bool = False
) -> torch.optim.Optimizer:
    """AdamW as released, or bitsandbytes' 8-bit version of it."""
    if use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY)


def share_gradients(accelerator: Accelerator, parameters: Sequence[torch.nn.Parameter]) -> None:
    """The mean of all processes' gradients: two views go through the same weights, which DDP's hooks do not take."""
    if accelerator.num_processes > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, "mean")


def validate(
    path: Path,
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel,
    samples: Sequence[Sample],
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    *,
    resolution: int,
    seed: int,
    only_mid_control: bool,
) -> None:
    """Write a sheet of mesh image, photo and generated picture of each sample; a full disk costs only the sheet.

    Args:
        prompt_embeds: (N, 77, hidden) of the samples' texts; `negative_prompt_embeds` (1, 77, hidden).
    """
    wholes = [views(sample, resolution)[0] for sample in samples]
    meshes, photos = [whole.mesh for whole in wholes], [whole.rgb for whole in wholes if whole.rgb is not None]
    noise = start_noise(seed, (len(samples), *latent_shape(pipe, resolution)[1:]))
    stage.eval()
    generated = draw(
        pipe,
        stage,
        prompt_embeds,
        negative_prompt_embeds,
        torch.stack(meshes),
        noise,
        num_inference_steps=VALIDATION_STEPS,
        only_mid_control=only_mid_control,
    )
    stage.train()
    rows = [
        [to_pil_image(mesh), to_pil_image((photo + 1) / 2), picture]
        for mesh, photo, picture in zip(meshes, photos, generated, strict=True)
    ]
    texts = [sample.text for sample in samples]
    cell = max(resolution, SMALLEST_CELL)
    sheet = contact_sheet(rows, column_labels=("mesh", "photo", "generated"), row_labels=texts, cell=cell)
    try:
        save_png(sheet, path)
    except OSError as error:
        say(f"warning: {path}: not saved ({reason_of(error)}); the run continues")
