"""Loading Stable Diffusion from the hub, a folder or a single file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from core.diffusion.hub import hub_answers, missing_model
from core.diffusion.model_path import is_single_file, refuse_adapter
from core.diffusion.unpickling import inert_globals, load_pickle
from core.runs.errors import UserError, reason_of
from core.runs.schema import misfit

WEIGHT_DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}  # by --mixed_precision
TIMESTEPS = 1000  # of the noise that a model was trained to predict

for library_logging in (diffusers_logging, transformers_logging):
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()


class PipelineIndex(TypedDict):
    """The parts of a Stable Diffusion in its model_index.json: classes that no model brings along itself."""

    _class_name: str
    vae: tuple[Literal["diffusers"], Literal["AutoencoderKL"]]
    text_encoder: tuple[Literal["transformers"], Literal["CLIPTextModel"]]
    tokenizer: tuple[Literal["transformers"], Literal["CLIPTokenizer", "CLIPTokenizerFast"]]
    unet: tuple[Literal["diffusers"], Literal["UNet2DConditionModel"]]
    scheduler: tuple[Literal["diffusers"], str]


class FurtherParts(TypedDict, total=False):
    image_encoder: tuple[None, None]


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
        UserError: nothing loadable there, the hub cannot be reached, the model has parts of another kind or of its
            own, or does not predict the noise (epsilon) of 1,000 timesteps.
    """
    configs = config if is_single_file(path) else path  # what the hub may be asked for
    local = (configs is not None and Path(configs).is_dir()) or not hub_answers()
    options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    options["local_files_only"] = local
    try:
        if configs is not None:
            index = StableDiffusionPipeline.load_config(configs, revision=revision, local_files_only=local)
            check_index(configs, index)
            refuse_adapter(Path(configs) / "text_encoder")
        if is_single_file(path):
            pipe = _load_single_file(Path(path), original_config=original_config, config=config, **options)
        else:
            pipe = StableDiffusionPipeline.from_pretrained(path, revision=revision, variant=variant, **options)
    except UserError:
        raise
    except Exception as error:  # diffusers, transformers, safetensors and the hub client raise a dozen kinds
        if local and not Path(path).exists():
            raise missing_model(path, "the folder or the .ckpt of a downloaded model") from None
        hint = "; without the hub, a single file needs --config FOLDER" if is_single_file(path) and not config else ""
        raise UserError(f"{path}: can't load Stable Diffusion from there ({reason_of(error)}){hint}") from None
    for name in ("unet", "vae", "text_encoder"):
        missing = [key for key, value in getattr(pipe, name).named_parameters() if value.is_meta]
        if missing:
            raise UserError(f"{path}: has no weights for {len(missing)} tensors of the {name}, e.g. {missing[0]}")
        getattr(pipe, name).float().requires_grad_(False).eval()
    if pipe.scheduler.config.get("prediction_type", "epsilon") != "epsilon":
        raise UserError(
            f"{path}: predicts {pipe.scheduler.config.prediction_type}; a model that predicts noise is needed"
        )
    if pipe.tokenizer.model_max_length > pipe.text_encoder.config.max_position_embeddings:
        raise UserError(f"{path}: has no tokenizer that fits its text encoder")
    if pipe.scheduler.config.num_train_timesteps != TIMESTEPS:
        steps = pipe.scheduler.config.num_train_timesteps
        raise UserError(f"{path}: was trained on {steps} timesteps; a model of {TIMESTEPS} is needed")
    return pipe


def check_index(path: str, index: dict[str, Any]) -> None:
    """Refuse parts that are not those of Stable Diffusion, such as code that comes with the model.

    Raises:
        UserError
    """
    if problem := misfit(index, PipelineIndex) or misfit(index, FurtherParts):
        raise UserError(
            f"{path}: can't load Stable Diffusion from there (model_index.json: {problem}); code that comes with a "
            "model is never run"
        )


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


def model_bytes(*models: torch.nn.Module) -> int:
    """Bytes of the weights."""
    return sum(tensor_bytes(model.state_dict().values()) for model in models)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
