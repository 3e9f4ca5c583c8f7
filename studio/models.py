"""The models of the page: loaded when they are first needed, the last few kept."""

import functools
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from attentionhand.generation import Control, load_control
from attentionhand.runs import finished_training
from core.diffusion.encoding import latent_shape
from core.diffusion.model_path import is_hub_id
from core.runs.processes import start_processes
from hand1000.generation import load_model
from hand1000.trained import model_to_load, read_trained_model
from studio.offers import Offers

KEPT = 2  # of each kind


@functools.lru_cache(maxsize=KEPT)
def pipeline(path: str, original_config: str | None = None, config: str | None = None) -> StableDiffusionPipeline:
    """A Stable Diffusion, or a run of train.py, that nobody changes.

    Raises:
        UserError: as `model_to_load` and `load_model`.
    """
    trained = read_trained_model(Path(path))
    return load_model(path, model_to_load(path, trained, None, original_config=original_config, config=config))


@functools.lru_cache(maxsize=KEPT)
def tuned_pipeline(run: str, base: tuple[str, str | None, str | None]) -> StableDiffusionPipeline:
    """A run of train.py; one with a LoRA takes the owner's base model where the record's is not there.

    Raises:
        UserError: as `pipeline`.
    """
    trained = read_trained_model(Path(run))
    own = trained and trained.lora_base
    if not own or Path(own.path).exists() or is_hub_id(own.path):
        return pipeline(run)
    path, original_config, config = base
    return load_model(run, model_to_load(run, trained, path, original_config=original_config, config=config))


def base_pipeline(offers: Offers) -> StableDiffusionPipeline:
    """The owner's base model."""
    return pipeline(offers.base, offers.original_config, offers.config)


@functools.lru_cache(maxsize=KEPT)
def controlled(
    offers_base: tuple[str, str | None, str | None], weights: Path, mixed_precision: str
) -> tuple[StableDiffusionPipeline, Control]:
    """AttentionHand's weights, and the base model with the UNet that belongs to them.

    Args:
        mixed_precision: of the page; Hand1000 draws with weights of this precision, AttentionHand with float32 ones.

    Raises:
        UserError: the weights are unfinished, can't be loaded, or belong to another base model.
    """
    training = finished_training(weights)
    only_mid = bool(training and training.settings.get("only_mid_control", False))
    has_own_unet = weights.is_file() or (weights / "unet").is_dir()
    is_shared = not has_own_unet and mixed_precision == "no"  # a UNet that is changed must not be
    load = pipeline if is_shared else pipeline.__wrapped__
    pipe = load(*offers_base)
    return pipe, load_control([weights], pipe, device(), only_mid_control=only_mid)


@functools.lru_cache(maxsize=KEPT)
def uncontrolled(
    offers_base: tuple[str, str | None, str | None], mixed_precision: str
) -> tuple[StableDiffusionPipeline, Control]:
    """The base model, which draws by the text alone; see `controlled`."""
    load = pipeline if mixed_precision == "no" else pipeline.__wrapped__
    pipe = load(*offers_base)
    return pipe, load_control([], pipe, device())


def device() -> torch.device:
    return start_processes().device


def own_resolution(pipe: StableDiffusionPipeline) -> int:
    """Pixels a side that a model was made for: 512 for Stable Diffusion 1, 64 for the miniature."""
    return pipe.unet.config.sample_size * pipe.vae_scale_factor


def shape_of(pipe: StableDiffusionPipeline, resolution: int | None) -> tuple[int, int, int, int]:
    """The shape of one picture's latents. Raises UserError where the model can't draw such a resolution."""
    return latent_shape(pipe, resolution or own_resolution(pipe))
