"""Generation: the weights that control, and the pictures of a batch of mesh images and texts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image

from attentionhand.data import grey, resize
from attentionhand.embeddings import distinct
from attentionhand.hand_words import token_positions
from attentionhand.sampling import draw, exciter
from attentionhand.weights import load_decoder, load_stage
from core.diffusion.encoding import encode_texts
from core.diffusion.stable_diffusion import WEIGHT_DTYPES
from core.runs.errors import UserError


class Control(NamedTuple):
    """What controls the pictures, and how."""

    stage: Any  # of `attentionhand.sampling.draw`
    options: dict[str, bool]


def load_control(
    weights: Sequence[Path],
    pipe: StableDiffusionPipeline,
    device: torch.device | str,
    *,
    guess_mode: bool = False,
    only_mid_control: bool = False,
) -> Control:
    """The networks of `weights`, and `pipe` with the UNet that was trained with them, all on the device.

    Args:
        weights: run folders, checkpoints or released files; none for pictures by the text alone.

    Raises:
        UserError: weights that can't be loaded, belong to another base model, or can't be combined.
    """
    stages = [load_stage(path, pipe).eval().requires_grad_(False) for path in weights]
    has_own_unet = [load_decoder(path, pipe) for path in weights]
    if len(stages) > 1 and any(has_own_unet):
        raise UserError("--weights: several can't be combined where one was trained with --sd_unlocked")
    for model in (pipe.unet, pipe.vae, *stages):
        model.to(device, memory_format=torch.channels_last)  # faster convolutions
    return control_of(stages, guess_mode=guess_mode, only_mid_control=only_mid_control)


def control_of(stages: Sequence[Any], *, guess_mode: bool, only_mid_control: bool) -> Control:
    """Nothing, one network, or several visual attention stages.

    Raises:
        UserError: options or combinations that only ControlNets have.
    """
    if stages and all(isinstance(stage, ControlNetModel) for stage in stages):
        return Control(stages, {"guess_mode": guess_mode, "only_mid_control": only_mid_control})
    if guess_mode or only_mid_control:
        raise UserError("--guess_mode and --only_mid_control are for the weights of a ControlNet")
    if len(stages) > 1:
        raise UserError("--weights: only ControlNets can be combined")
    return Control(stages[0] if stages else None, {})


def control_image(mesh: np.ndarray, resolution: int) -> np.ndarray:
    """A mesh image (H, W, 3) uint8 as it controls a picture, (S, S) uint8."""
    return resize(grey(mesh), resolution)


def draw_batch(
    pipe: StableDiffusionPipeline,
    control: Control,
    texts: Sequence[str],
    negative_embeds: torch.Tensor,
    meshes: np.ndarray,
    noises: Sequence[torch.Tensor],
    device: torch.device,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    strength: float = 1.0,
    mixed_precision: str = "no",
    tas_steps: int = 0,
    tas_verbs: str = "ending",
    after_step: Callable[[], object] = lambda: None,
) -> list[Image.Image]:
    """Draw B pictures together.

    Args:
        texts: one a picture.
        negative_embeds: of the negative prompt, (1, 77, hidden).
        meshes: as `control_image` makes them, (B, S, S) uint8.
        noises: what each picture starts from, (C, h, w).
        strength: of the control; 1 is as trained.
        mixed_precision: "no", "fp16" or "bf16".
        tas_steps: gradient steps of the text attention stage before each DDIM step; 0 leaves it out.
        tas_verbs: how its verbs are found, see `hand_words.verbs_in_ing`.
        after_step: called after each DDIM step.

    Raises:
        UserError: the pictures became NaN.
    """
    mesh = torch.from_numpy(meshes)[:, None].float().expand(-1, 3, -1, -1) / 255  # (B, 3, S, S)
    different, rows = distinct(texts)
    prompt_embeds = encode_texts(pipe, different, device, desc=None)[rows]
    excite = None
    if tas_steps:
        positions = [token_positions(pipe.tokenizer, text, tas_verbs) for text in texts]
        excite = exciter(pipe.unet, prompt_embeds, positions, steps=tas_steps)
    dtype = WEIGHT_DTYPES[mixed_precision]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return draw(
            pipe,
            control.stage,
            prompt_embeds,
            negative_embeds,
            mesh,
            torch.stack(list(noises)),
            num_inference_steps=num_inference_steps,
            before_step=excite,
            after_step=after_step,
            guidance_scale=guidance_scale,
            strength=strength,
            **control.options,
        )
