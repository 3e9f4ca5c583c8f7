"""Generation: the double-fused embedding at mu, and DDIM with classifier-free guidance as the released code samples.

For a person who draws with plain diffusers, `fused_prompt_embeds` gives the embeddings at any mu:

    pipe = StableDiffusionPipeline.from_pretrained("output/call", safety_checker=None)
    embeds, negative = fused_prompt_embeds(pipe, prompts, run="output/call", mu=0.5)
    pictures = pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, guidance_scale=3).images
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from core.diffusion.encoding import encode_texts
from core.diffusion.noise import ddim_scheduler
from core.diffusion.sampling import ddim, decode, guided, save_picture, start_noise
from core.diffusion.stable_diffusion import WEIGHT_DTYPES, load_stable_diffusion
from core.runs.processes import counted, progress
from hand1000.fusion import double_fusion, fuse
from hand1000.gesture_feature import load_gesture_feature
from hand1000.lora import merge_lora
from hand1000.trained import FEATURE_FILE, FusionWeights, StoredModel, local_run, trained_model


class Picture(NamedTuple):
    """A picture to draw."""

    path: Path
    prompt: int  # its place in the prompts
    mu: float
    seed: int  # of its start noise


class PromptEmbeds(NamedTuple):
    """Encoded prompts, on the CPU."""

    text: torch.Tensor  # (N, 77, hidden)
    fused: torch.Tensor  # (N, 77, hidden)
    negative: torch.Tensor  # (1, 77, hidden): the text "", not fused

    def at(self, prompt: int, mu: float) -> torch.Tensor:
        """The double-fused embedding of one prompt, (77, hidden)."""
        return double_fusion(self.text[prompt], self.fused[prompt], mu)


def load_model(ckpt: str, model: StoredModel) -> StableDiffusionPipeline:
    """The pipeline to draw with; where `model` is the base model of a run with a LoRA, with that added to its weights.

    Args:
        ckpt: the run folder, or what `model` names itself.
        model: as `hand1000.trained.model_to_load` gives it.

    Raises:
        UserError: as `load_stable_diffusion` and `merge_lora`.
    """
    pipe = load_stable_diffusion(**model._asdict())
    if model.path != ckpt:
        merge_lora(pipe, Path(ckpt))
    return pipe


def encode_prompts(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    feature: np.ndarray | None,
    fusion: FusionWeights | None,
    device: torch.device | str,
) -> PromptEmbeds:
    """Text embeddings, and fused ones unless `fusion` is None: then the text stands in their place (mu is 1)."""
    embeds = encode_texts(pipe, [*prompts, ""], device)
    text, negative = embeds[:-1], embeds[-1:]
    if fusion is None or feature is None:
        return PromptEmbeds(text, text, negative)
    fused = fuse(text, torch.from_numpy(feature), seed=fusion.seed, weights_file=fusion.file, device=device)
    return PromptEmbeds(text, fused, negative)


def fused_prompt_embeds(
    pipe: StableDiffusionPipeline,
    prompts: Sequence[str],
    *,
    run: str | Path,
    feature: str | Path | None = None,
    mu: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings for diffusers' own pipeline: mu * text + (1 - mu) * fused (`double_fusion`).

    Args:
        pipe: loaded from the run folder.
        run: the run folder that train.py made, which knows its fusion layer, or its hub id.
        feature: the gesture feature that cal_mean_feature.py made (default: the run's own).
        mu: share of the text, 0 to 1.

    Returns:
        `prompt_embeds` and `negative_prompt_embeds`, both (N, 77, hidden) on the pipeline's device, in its precision.

    Raises:
        UserError: the run is missing or unfinished, or the feature is not one.
    """
    device, dtype = pipe.device, pipe.text_encoder.dtype
    folder = local_run(str(run))
    fusion = trained_model(folder).fusion
    embeds = encode_prompts(pipe, prompts, load_gesture_feature(Path(feature or folder / FEATURE_FILE)), fusion, device)
    pipe.text_encoder.to(device)
    mixed = double_fusion(embeds.text, embeds.fused, mu)
    return mixed.to(device, dtype), embeds.negative.expand_as(mixed).to(device, dtype)


def sample(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    negative_prompt_embeds: torch.Tensor,
    *,
    guidance_scale: float,
    num_inference_steps: int,
    after_step: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """DDIM (eta 0) from noise `latents` (B, 4, h, w) to final latents, float32, on the UNet's device.

    prompt_embeds (B, 77, hidden); negative_prompt_embeds (1, 77, hidden). Guidance 1 asks the UNet only once a step.
    """
    device, dtype = unet.device, unet.dtype
    embeds = prompt_embeds
    if guidance_scale != 1:
        embeds = torch.cat([negative_prompt_embeds.to(prompt_embeds).expand_as(prompt_embeds), prompt_embeds])
    embeds = embeds.to(device, dtype)

    def denoise(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        if guidance_scale == 1:
            return unet(latents.to(dtype), timestep, embeds).sample.float()
        noise_pred = unet(torch.cat([latents, latents]).to(dtype), timestep, embeds).sample
        return guided(noise_pred, guidance_scale)

    return ddim(denoise, scheduler, latents.to(device), num_inference_steps=num_inference_steps, after_step=after_step)


def draw_pictures(
    pipe: StableDiffusionPipeline,
    embeds: PromptEmbeds,
    pictures: Sequence[Picture],
    device: torch.device | str,
    *,
    latent_shape: Sequence[int],
    image_size: int,
    batch_size: int,
    guidance_scale: float,
    num_inference_steps: int,
    mixed_precision: str,
) -> None:
    """Draw pictures and save each as soon as its batch is done. A picture does not depend on its batch.

    Args:
        latent_shape: of one picture's latents, (1, 4, h, w).
        image_size: pixels per side of the saved picture; 0 keeps what the model draws.
    """
    scheduler = ddim_scheduler(pipe)
    pipe.unet.to(device, WEIGHT_DTYPES[mixed_precision])
    pipe.vae.to(device)
    batches = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
    total, desc = len(batches) * num_inference_steps, counted(len(pictures), "picture")
    with progress(total=total, desc=desc, unit="step") as bar:
        for batch in batches:
            latents = sample(
                pipe.unet,
                scheduler,
                torch.cat([start_noise(picture.seed, latent_shape) for picture in batch]),
                torch.stack([embeds.at(picture.prompt, picture.mu) for picture in batch]),
                embeds.negative,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                after_step=bar.update,
            )
            for picture, image in zip(batch, decode(pipe.vae, latents), strict=True):
                save_picture(image, picture.path, image_size)
