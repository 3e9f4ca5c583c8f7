"""What a training of AttentionHand is made of beside its loss: networks, optimizer, gradients, validation pictures."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ControlNetModel, DDPMScheduler, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from torchvision.transforms.functional import to_pil_image

from attentionhand.data import Sample, ViewPair, views
from attentionhand.sampling import draw
from attentionhand.text_attention import excite_views, layers_at
from attentionhand.visual_attention import StepNoise, noisy_views, view_loss
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


def training_step(
    accelerator: Accelerator,
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel | T2IAdapter,
    tas_unet: UNet2DConditionModel | None,
    noise_scheduler: DDPMScheduler,
    pair: ViewPair,
    prompt_embeds: torch.Tensor,
    noise: StepNoise,
    positions: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]],
    *,
    local_view: str,
    tas_steps: int,
    only_mid_control: bool,
    gradient_checkpointing: bool,
) -> torch.Tensor:
    """A batch through both stages of the paper: TAS moves the noisy latents, VAS gets the gradient of their loss.

    Args:
        tas_unet: of the text attention stage; None leaves it out.
        pair: the global and the local views of B samples, on the device, with prompt_embeds (B, 77, hidden).
        positions: the tokens to excite in each text, in the global and in the local view.
        local_view, tas_steps, only_mid_control: as the options of attentionhand.train.

    Returns:
        The losses of the views, (1,) or (2,), whose mean is `attentionhand_loss`; one view is back-propagated after the
        other, which gives the same gradient for half the memory.
    """
    with accelerator.autocast():
        noisy = noisy_views(pipe.vae, noise_scheduler, pair, noise, *positions, local_view=local_view)
        if tas_unet is not None:
            noisy = excite_views(tas_unet, noisy, noise.timesteps, prompt_embeds, steps=tas_steps)
    losses = []
    for view in noisy:
        with accelerator.autocast(), decoder_checkpointing(pipe.unet, gradient_checkpointing):
            loss = view_loss(pipe.unet, stage, noise.timesteps, prompt_embeds, view, only_mid_control=only_mid_control)
        accelerator.backward(loss / len(noisy))
        losses.append(loss.detach())
    return torch.stack(losses)


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], lr: float, *, use_8bit_adam: bool = False
) -> torch.optim.Optimizer:
    """AdamW as released, its arithmetic in one kernel, or bitsandbytes' 8-bit version of it."""
    if use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(parameters, lr=lr, weight_decay=WEIGHT_DECAY)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)


def share_gradients(accelerator: Accelerator, parameters: Sequence[torch.nn.Parameter]) -> None:
    """The mean of all processes' gradients in one go: the views share their weights, which DDP's hooks do not take."""
    if accelerator.num_processes > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def decoder_checkpointing(unet: UNet2DConditionModel, wanted: bool) -> Iterator[None]:
    """During the block, if `wanted`, the UNet's way up computes its activations again for the gradient.

    Only there: the text attention stage stops in the middle of a UNet that may be the same.
    """
    if wanted:
        unet.enable_gradient_checkpointing()
        for module in (*unet.down_blocks.modules(), *unet.mid_block.modules()):
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False
    try:
        yield
    finally:
        if wanted:
            unet.disable_gradient_checkpointing()


def validate(
    path: Path,
    pipe: StableDiffusionPipeline,
    stage: ControlNetModel | T2IAdapter,
    samples: Sequence[Sample],
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    *,
    resolution: int,
    seed: int,
    only_mid_control: bool,
    without_photos: Path | None = None,
) -> None:
    """Write a sheet of mesh image, photo and generated picture of each sample; a full disk costs only the sheet.

    Args:
        without_photos: also write a sheet of mesh image and generated picture there, which may be shown to others.
        prompt_embeds: (N, 77, hidden) of the samples' texts; `negative_prompt_embeds` (1, 77, hidden).
    """
    wholes = [views(sample, resolution)[0] for sample in samples]
    meshes, photos = [whole.mesh for whole in wholes], [whole.rgb for whole in wholes if whole.rgb is not None]
    noise = start_noise(seed, (len(samples), *latent_shape(pipe, resolution)[1:]))
    options: dict[str, Any] = {"only_mid_control": only_mid_control} if isinstance(stage, ControlNetModel) else {}
    stage.eval()
    generated = draw(
        pipe,
        stage,
        prompt_embeds,
        negative_prompt_embeds,
        torch.stack(meshes),
        noise,
        num_inference_steps=VALIDATION_STEPS,
        **options,
    )
    stage.train()
    rows = [
        [to_pil_image(mesh), to_pil_image((photo + 1) / 2), picture]
        for mesh, photo, picture in zip(meshes, photos, generated, strict=True)
    ]
    columns = {path: (0, 1, 2), without_photos: (0, 2)}
    labels, texts, cell = ("mesh", "photo", "generated"), [one.text for one in samples], max(resolution, SMALLEST_CELL)
    for sheet, shown in columns.items():
        if sheet:
            cells, named = [[row[place] for place in shown] for row in rows], [labels[place] for place in shown]
            try:
                save_png(contact_sheet(cells, column_labels=named, row_labels=texts, cell=cell), sheet)
            except OSError as error:
                say(f"warning: {sheet}: not saved ({reason_of(error)}); the run continues")
