"""Texts to embeddings and photos to latents."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torchvision.transforms import functional as TF

from core.runs.errors import UserError
from core.runs.photos import load_photo, resize_and_crop
from core.runs.processes import progress

ENCODE_BATCH = 4  # photos or texts encoded at a time; a VAE needs about 1 GB for each photo of 512 x 512


@torch.no_grad()
def encode_texts(
    pipe: StableDiffusionPipeline,
    texts: Sequence[str],
    device: torch.device | str,
    *,
    desc: str | None = "Encoding texts",
) -> torch.Tensor:
    """CLIP's last hidden states, (N, 77, hidden) float32 on the CPU; longer texts are cut at 77 tokens.

    Args:
        desc: text of the progress bar; None for no bar.
    """
    pipe.text_encoder.to(device)
    tokens = pipe.tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    batches = progress(tokens.split(ENCODE_BATCH), desc=desc, unit="batch", disable=desc is None)
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
        noise = torch.cat(list(posterior_noise[batch]))
        latents.append(posterior_sample(vae, pixels.to(device), noise.to(device)).cpu())
    vae.to("cpu")
    return torch.cat(latents)


@torch.no_grad()
def posterior_sample(vae: AutoencoderKL, pixels: torch.Tensor, posterior_noise: torch.Tensor) -> torch.Tensor:
    """A sample of the VAE's posterior times the scaling factor: latents (B, 4, h, w) of pixels (B, 3, H, W)."""
    posterior = vae.encode(pixels).latent_dist
    return vae.config.scaling_factor * (posterior.mean + posterior.std * posterior_noise)


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
