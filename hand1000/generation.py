"""Generation: DDIM with classifier-free guidance, exactly as the released code samples."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw, ImageFont

from core.runs.errors import UserError
from core.runs.files import atomic_file


def start_noise(seed: int, latent_shape: Sequence[int]) -> torch.Tensor:
    """(1, 4, h, w): the first draw of a CPU generator, so that every device starts from the same noise."""
    return torch.randn(latent_shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
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

    prompt_embeds (B, 77, hidden); negative_prompt_embeds (1, 77, hidden), the text "" (not fused).
    """
    device, dtype = unet.device, unet.dtype
    guided = guidance_scale != 1
    embeds = prompt_embeds
    if guided:
        embeds = torch.cat([negative_prompt_embeds.expand_as(prompt_embeds), prompt_embeds])
    embeds, latents = embeds.to(device, dtype), latents.to(device)
    scheduler.set_timesteps(num_inference_steps)
    for timestep in scheduler.timesteps:
        inputs = torch.cat([latents, latents]) if guided else latents
        noise_pred = unet(inputs.to(dtype), timestep.to(device), embeds).sample.float()
        if guided:
            unconditional, conditional = noise_pred.chunk(2)
            noise_pred = unconditional + guidance_scale * (conditional - unconditional)
        latents = scheduler.step(noise_pred, timestep, latents).prev_sample
        after_step()
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor) -> list[Image.Image]:
    """Pictures of latents, one by one (less memory). To uint8 by truncation as released, where diffusers rounds."""
    pictures = []
    for one in latents.split(1):
        pixels = vae.decode(one.to(vae.dtype) / vae.config.scaling_factor).sample.float()
        pixels = 255 * ((pixels[0] + 1) / 2).clamp(0, 1)  # (3, height, width)
        pictures.append(Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy().astype(np.uint8)))
    return pictures


def save_picture(picture: Image.Image, path: Path, image_size: int) -> None:
    """Resize to image_size x image_size (bicubic; 0 keeps) and write in the format of the name's ending."""
    if image_size:
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    with atomic_file(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])


def contact_sheet(rows: Sequence[Sequence[Path]], column_labels: Sequence[str], cell: int = 200) -> Image.Image:
    """Pictures in rows under labelled columns, each row labelled with its file name.

    Raises:
        UserError: a picture can't be read.
    """
    font = ImageFont.load_default(14)
    header, footer = 24, 20
    sheet = Image.new("RGB", (cell * len(column_labels), header + (cell + footer) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        pen.text((cell * (column + 0.5), header / 2), label, fill="black", font=font, anchor="mm")
    for row, paths in enumerate(rows):
        top = header + row * (cell + footer)
        for column, path in enumerate(paths):
            try:
                with Image.open(path) as picture:
                    sheet.paste(picture.convert("RGB").resize((cell, cell)), (column * cell, top))
            except OSError as error:
                raise UserError(f"{path}: not a readable image ({error}); remove it and run again") from None
        pen.text((4, top + cell + 2), paths[0].name, fill="black", font=font)
    return sheet
