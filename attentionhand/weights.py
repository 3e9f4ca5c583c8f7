"""Weights in and out: a diffusers ControlNet with a UNet beside it, or one file with the released names."""

from pathlib import Path

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, T2IAdapter, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file

from attentionhand.adapter import new_adapter
from attentionhand.visual_attention import new_stage
from core.diffusion.single_file import check_convertible, compvis_tensors, unet_name
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.diffusion.unpickling import load_tensors
from core.runs.errors import UserError, reason_of
from core.runs.files import atomic_file
from core.runs.schema import parsed_json

PREFIX = "VAS."  # of the ControlNet's tensors in a released file; other programs write control_model.
STAGE_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
}


def load_stage(path: Path, pipe: StableDiffusionPipeline) -> ControlNetModel | T2IAdapter:
    """A visual attention stage that fits `pipe`: from a run folder, a diffusers folder, or a released file.

    A folder may also hold the baseline's adapter.

    Raises:
        UserError: nothing loadable there, tensors missing, or a stage for another base model (names the tensor).
    """
    is_adapter = path.is_dir() and holds_adapter(path)
    stage = new_adapter(pipe.unet, pipe.vae) if is_adapter else new_stage(pipe.unet, pipe.vae)
    if path.is_dir():
        try:
            tensors = type(stage).from_pretrained(path).state_dict()
        except Exception as error:  # diffusers, safetensors and json each raise their own
            kind = "T2I-Adapter" if is_adapter else "ControlNet"
            raise UserError(f"{path}: can't load a {kind} from there ({reason_of(error)})") from None
    elif path.is_file():
        tensors = stage_tensors(read_single_file(path), stage, path)
    else:
        raise UserError(f"{path}: no such file or folder")
    wanted = {name: tensor.shape for name, tensor in stage.state_dict().items()}
    missing = [name for name in wanted if tensors.get(name) is None]
    misfits = [name for name in wanted if name not in missing and tensors[name].shape != wanted[name]]
    if missing or misfits:
        name = (missing or misfits)[0]
        problem = f"lacks {len(missing)} tensors" if missing else f"has {len(misfits)} tensors of another size"
        raise UserError(f"{path}: belongs to another base model: {problem}, the first is {name}")
    stage.load_state_dict({name: tensors[name] for name in wanted})
    return stage


def holds_adapter(folder: Path) -> bool:
    """Whether a folder of weights holds the baseline's T2I-Adapter and not a ControlNet."""
    try:
        return parsed_json((folder / "config.json").read_bytes())["_class_name"] == T2IAdapter.__name__
    except (OSError, ValueError, TypeError, KeyError):
        return False


def load_decoder(path: Path, pipe: StableDiffusionPipeline) -> bool:
    """Put the UNet that was trained with the stage (--sd_unlocked) into `pipe`, where `path` holds one.

    In a run folder it is unet/; a released file always holds a UNet, which is the base model's unless it was trained.

    Returns:
        Whether the UNet is now another than before.

    Raises:
        UserError: it can't be loaded, or does not fit the base model.
    """
    try:
        if (path / "unet").is_dir():
            tensors = UNet2DConditionModel.from_pretrained(path / "unet").state_dict()
        elif path.is_file():
            tensors = {n: t for n, t in read_single_file(path).items() if n.startswith("model.diffusion_model.")}
            tensors = tensors and convert_ldm_unet_checkpoint(tensors, pipe.unet.config)
        else:
            return False
        if not tensors:
            return False
        before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
        pipe.unet.load_state_dict(tensors)
        return any(not torch.equal(tensor, before[name]) for name, tensor in pipe.unet.state_dict().items())
    except UserError:
        raise
    except Exception as error:  # diffusers and torch each raise their own
        raise UserError(f"{path}: its UNet does not fit the base model ({reason_of(error)})") from None


def read_single_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.ckpt` or `.safetensors` file."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:
            raise UserError(f"{path}: not a safetensors file ({reason_of(error)})") from None
    return load_tensors(path, "state_dict")


def stage_tensors(tensors: dict[str, torch.Tensor], stage: ControlNetModel, path: Path) -> dict[str, torch.Tensor]:
    """The ControlNet of a released file under diffusers' names, by diffusers' own converter."""
    prefix = next((p for p in (PREFIX, "control_model.") if any(name.startswith(p) for name in tensors)), None)
    if not prefix:
        raise UserError(f"{path}: holds no tensors of a visual attention stage (their names begin with {PREFIX})")
    own = {f"control_model.{name[len(prefix) :]}": value for name, value in tensors.items() if name.startswith(prefix)}
    try:
        return convert_controlnet_checkpoint(own, stage.config)
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: its visual attention stage has another layout ({reason_of(error)})") from None


def stage_name(name: str, config) -> str:
    """The released name, after `VAS.`, of a diffusers ControlNet tensor."""
    module, _, rest = name.rpartition(".")
    parts = name.split(".")
    blocks = 2 * (len(config.conditioning_embedding_out_channels) - 1)
    if module in STAGE_ENDS:
        return f"{STAGE_ENDS[module]}.{rest}"
    if parts[0] == "controlnet_down_blocks":
        return f"zero_convs.{parts[1]}.0.{rest}"
    if module == "controlnet_cond_embedding.conv_out":
        return f"input_hint_block.{2 * blocks + 2}.{rest}"
    if parts[0] == "controlnet_cond_embedding":
        return f"input_hint_block.{2 * int(parts[2]) + 2}.{rest}"
    return unet_name(name, config)


def save_single_file(pipe: StableDiffusionPipeline, stage: ControlNetModel, path: Path) -> None:
    """Everything in one file with the released names: `VAS.*` beside Stable Diffusion's, atomically.

    `.ckpt` is what the released code reads; `.safetensors` is safer.

    Raises:
        UserError: the base model is not of Stable Diffusion 1's kind.
    """
    check_convertible(pipe)
    tensors = compvis_tensors(pipe)
    tensors |= {f"{PREFIX}{stage_name(name, stage.config)}": value for name, value in stage.state_dict().items()}
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            save_file(tensors, temporary)
        else:
            torch.save({"state_dict": tensors}, temporary)


def save_run_as_single_file(
    run_folder: Path, target: Path, model: str, *, original_config: str | None = None, config: str | None = None
) -> None:
    """`save_single_file` of a finished run; the other arguments are those of `load_stable_diffusion`."""
    pipe = load_stable_diffusion(model, original_config=original_config, config=config)
    load_decoder(run_folder, pipe)
    stage = load_stage(run_folder, pipe)
    if not isinstance(stage, ControlNetModel):
        raise UserError(f"{run_folder}: holds a T2I-Adapter, for which there is no released file")
    save_single_file(pipe, stage, target)
