"""Stable Diffusion in and out: loading from the hub, a folder or a single file, and encoding photos and texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torchvision.transforms import functional as TF
from transformers.utils import logging as transformers_logging

from hand1000.cli import UserError, reason_of
from hand1000.files import load_photo, progress
from hand1000.model_path import is_single_file
from hand1000.pictures import resize_and_crop
from hand1000.unpickling import inert_globals, load_pickle

Scheduler = TypeVar("Scheduler", DDPMScheduler, DDIMScheduler)
ENCODE_BATCH = 4  # photos or texts encoded at a time; a VAE needs about 1 GB for each photo of 512 x 512

for library_logging in (diffusers_logging, transformers_logging):
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()


def load_stable_diffusion(
    path: str,
    *,
    original_config: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline in float32 on the CPU, without safety checker.

    Args:
        path: a hub id, a diffusers folder, or a CompVis-style `.ckpt` / `.safetensors`. Of a file that holds both raw
            and EMA weights the raw ones are taken, as the released code does.
        original_config: the YAML that belongs to a single file (default: inferred by diffusers).
        config: a diffusers folder (or hub id) with the configurations and the tokenizer for a single file.
        revision, variant: of a hub id, as in diffusers.

    Raises:
        UserError: nothing loadable there, or not an epsilon-predicting Stable Diffusion.
    """
    options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        if is_single_file(path):
            pipe = _load_single_file(Path(path), original_config=original_config, config=config, **options)
        else:
            pipe = StableDiffusionPipeline.from_pretrained(path, revision=revision, variant=variant, **options)
    except UserError:
        raise
    except Exception as error:  # diffusers, transformers, safetensors and the hub client raise a dozen kinds
        if not Path(path).exists():
            raise UserError(
                f"{path}: no such folder here, and the hub has it not or can't be reached ({type(error).__name__}); "
                "pass the folder or the .ckpt of a downloaded model"
            ) from None
        hint = "; without the hub, a single file needs --config FOLDER" if is_single_file(path) and not config else ""
        raise UserError(f"{path}: can't load Stable Diffusion from there ({reason_of(error)}){hint}") from None
    for name in ("unet", "vae", "text_encoder"):
        missing = [key for key, value in getattr(pipe, name).named_parameters() if value.is_meta]
        if missing:
            raise UserError(f"{path}: has no weights for {len(missing)} tensors of the {name}, e.g. {missing[0]}")
        getattr(pipe, name).float().requires_grad_(False).eval()
    if pipe.scheduler.config.get("prediction_type", "epsilon") != "epsilon":
        raise UserError(
            f"{path}: predicts {pipe.scheduler.config.prediction_type}; Hand1000 needs one that predicts noise"
        )
    return pipe


def _load_single_file(path: Path, *, original_config: str | None, config: str | None, **options):
    if path.suffix == ".safetensors":
        return StableDiffusionPipeline.from_single_file(
            str(path), original_config=original_config, config=config, **options
        )
    load_pickle(path)  # memory-mapped: costs nothing, and says clearly when the file is no checkpoint
    with inert_globals(path):
        return StableDiffusionPipeline.from_single_file(
            str(path), original_config=original_config, config=config, **options
        )


def training_scheduler(pipe: StableDiffusionPipeline) -> DDPMScheduler:
    """The model's forward noise schedule (released: scaled_linear from 0.00085 to 0.012 over 1,000 steps)."""
    return with_exact_alphas(DDPMScheduler.from_config(pipe.scheduler.config))


def ddim_scheduler(pipe: StableDiffusionPipeline) -> DDIMScheduler:
    """The released sampler on the model's own noise schedule: 45 steps are t = 969, 947, ..., 23, 1."""
    scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config,
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        thresholding=False,
        rescale_betas_zero_snr=False,
    )
    return with_exact_alphas(scheduler)


def with_exact_alphas(scheduler: Scheduler) -> Scheduler:
    """CompVis accumulates the noise schedule in float64 and rounds once; diffusers' float32 is up to 1e-6 off that."""
    config = scheduler.config
    power = {"linear": 1, "scaled_linear": 2}.get(config.beta_schedule)
    if power and config.trained_betas is None:
        root = 1 / power
        betas = np.linspace(config.beta_start**root, config.beta_end**root, config.num_train_timesteps) ** power
        scheduler.alphas_cumprod = torch.from_numpy(np.cumprod(1 - betas)).float()
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


@torch.no_grad()
def encode_texts(pipe: StableDiffusionPipeline, texts: Sequence[str], device: torch.device | str) -> torch.Tensor:
    """CLIP's last hidden states, (N, 77, hidden) float32 on the CPU; longer texts are cut at 77 tokens."""
    pipe.text_encoder.to(device)
    tokens = pipe.tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    batches = progress(tokens.split(ENCODE_BATCH), desc="Encoding texts", unit="batch")
    embeds = torch.cat([pipe.text_encoder(batch.to(device)).last_hidden_state.cpu() for batch in batches])
    pipe.text_encoder.to("cpu")
    return embeds


def prepare_photo(photo: Image.Image, resolution: int) -> torch.Tensor:
    """(3, resolution, resolution) in [-1, 1]: shorter side resized (bilinear, antialiased), then centre crop."""
    return 2 * TF.to_tensor(resize_and_crop(photo, resolution)) - 1


@torch.no_grad()
def encode_photos(
    vae: AutoencoderKL,
    paths: Sequence[Path],
    resolution: int,
    posterior_noise: Sequence[torch.Tensor],
    device: torch.device | str,
) -> torch.Tensor:
    """Latents of photos, (N, 4, resolution / 8, resolution / 8) float32 on the CPU.

    A *sample* of the VAE's posterior times the scaling factor (0.18215), as released; `posterior_noise` holds one
    (1, 4, h, w) standard normal draw for each photo.
    """
    vae.to(device)
    latents = []
    starts = progress(range(0, len(paths), ENCODE_BATCH), desc="Encoding photos", unit="batch")
    for start in starts:
        batch = slice(start, start + ENCODE_BATCH)
        pixels = torch.stack([prepare_photo(load_photo(path), resolution) for path in paths[batch]])
        posterior = vae.encode(pixels.to(device)).latent_dist
        noise = torch.cat(list(posterior_noise[batch])).to(device)
        latents.append((vae.config.scaling_factor * (posterior.mean + posterior.std * noise)).cpu())
    vae.to("cpu")
    return torch.cat(latents)


def latent_shape(pipe: StableDiffusionPipeline, resolution: int) -> tuple[int, int, int, int]:
    """The shape of one picture's latents, (1, 4, resolution / 8, resolution / 8) for Stable Diffusion 1 and 2.

    Raises:
        UserError: the resolution is no multiple of what the VAE and the UNet shrink it by (64).
    """
    shrink = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    if resolution % shrink:
        raise UserError(f"--resolution {resolution} is not a multiple of {shrink}, which this model needs")
    side = resolution // pipe.vae_scale_factor
    return 1, pipe.unet.config.in_channels, side, side
