"""A Stable Diffusion of the real classes, small enough for tests and for the demo, with random weights.

Its pictures mean nothing; everything else about it (folders, files, shapes of the code's path) is real.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

RESOLUTION = 64  # pixels per side that the tiny model is made for; its latents are 16 x 16


def tiny_stable_diffusion(seed: int = 0, hidden_size: int = 32) -> StableDiffusionPipeline:
    """A random Stable Diffusion 1.x in miniature: 4-channel latents at a quarter of 64 pixels, 77 tokens."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=hidden_size,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 4,
        block_out_channels=(64, 128),  # the 32 groups of each norm need more than one channel
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=hidden_size,
        attention_head_dim=4,
    ).eval()
    vae = AutoencoderKL(
        sample_size=RESOLUTION,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
    ).eval()
    return pipeline(vae, tokenizer, text_encoder, unet)


def pipeline(
    vae: AutoencoderKL, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """A Stable Diffusion 1.x of these parts, with its noise schedule and without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def noise_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def byte_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer without merges: every byte is a token, in two forms, inside a word and at its end."""
    characters = list(byte_characters().values())
    tokens = characters + [f"{character}</w>" for character in characters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocabulary, [], model_max_length=77)


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in GPT-2's and CLIP's vocabularies."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}


def save_tiny_model(folder: Path) -> Path:
    """Write the tiny model as a diffusers folder and return it."""
    transformers_logging.disable_progress_bar()
    tiny_stable_diffusion().save_pretrained(folder)
    return folder
