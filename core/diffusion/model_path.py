"""What a path to a model is, told without loading anything."""

from pathlib import Path

from core.diffusion.hub import check_available
from core.runs.errors import UserError

SINGLE_FILE_SUFFIXES = (".ckpt", ".safetensors")


def is_single_file(path: str) -> bool:
    """Whether `path` names one checkpoint file rather than a folder or a hub id."""
    return path.endswith(SINGLE_FILE_SUFFIXES)


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder whose weights transformers would take from elsewhere, where its adapter_config.json says.

    Raises:
        UserError
    """
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{folder}: an adapter of another model (adapter_config.json), not a whole one; merge the two")


def is_hub_id(model: str) -> bool:
    """Whether a name can only be that of a model on the hub: owner/name, and nothing here has it."""
    if model.count("/") != 1 or is_single_file(model) or Path(model).exists():
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError:
        return False
    return True


def check_model_path(path: str, original_config: str | None, config: str | None, revision: str | None = None) -> None:
    """Refuse a path that can't be a model, before torch is imported.

    Raises:
        UserError: a missing file, a folder without `model_index.json`, a model of the hub that can't be had, a missing
            YAML.
    """
    if is_single_file(path):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such checkpoint file")
    elif Path(path).is_dir():
        if not (Path(path) / "model_index.json").is_file():
            raise UserError(f"{path}: not a diffusers folder (no model_index.json in it)")
    elif path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise UserError(f"{path}: no such folder, and not a hub id (owner/name)")
    else:
        check_available(path, "model_index.json", "the folder or the .ckpt of a downloaded model", revision)
    if original_config and not original_config.startswith("http") and not Path(original_config).is_file():
        raise UserError(f"{original_config}: no such file (--original_config)")
    if config and not Path(config).is_dir() and (config.count("/") != 1 or config.startswith((".", "/"))):
        raise UserError(f"{config}: no such folder, and not a hub id (--config)")
