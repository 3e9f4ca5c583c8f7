"""transformers models from the hub or a folder, with errors for the person at the shell."""

from pathlib import Path
from typing import Any

from core.diffusion.hub import check_available, hub_answers, missing_model
from core.diffusion.model_path import refuse_adapter
from core.runs.errors import UserError, reason_of
from core.runs.processes import start_processes

INSTEAD = "the folder of a downloaded model as --model"
MOST_MISSING = 0.05  # of a model's tensors; published models may lack a pooling layer that nothing uses


def check_model(model: str) -> None:
    """Refuse what can be neither a folder of a model nor a hub id, before torch is imported.

    Raises:
        UserError
    """
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise UserError(f"{model}: not the folder of a model (no config.json in it)")
    elif model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(f"{model}: no such folder, and not a hub id (owner/name)")


def check_available_model(model: str) -> None:
    """Refuse a model that is neither here nor can be downloaded, before torch is imported.

    Raises:
        UserError
    """
    check_available(model, "config.json", INSTEAD)


def load_pretrained(kind: Any, model: str, **options: Any) -> Any:
    """`kind.from_pretrained(model)`, without running code that comes with the model.

    Args:
        kind: a class of transformers: a model, a tokenizer or a processor.
        model: a hub id, which also loads from the hub's cache if the hub cannot be reached, or a folder.

    Raises:
        UserError: the hub cannot be reached or refuses, the folder holds another kind of model or a part of one, or
            the model asks to run code of its own.
    """
    local = Path(model).is_dir() or not hub_answers()
    options |= {"local_files_only": local, "trust_remote_code": False}
    refuse_adapter(Path(model))
    try:
        if not has_weights(kind):
            return kind.from_pretrained(model, **options)
        options["adapter_kwargs"] = {"local_files_only": local}  # or it asks the hub for an adapter all the same
        loaded, info = kind.from_pretrained(model, output_loading_info=True, **options)
    except Exception as error:  # transformers, safetensors and the hub client raise a dozen kinds
        raise _load_error(error, kind.__name__, model, local) from None
    missing, tensors = len(info["missing_keys"]), len(loaded.state_dict())
    if missing > MOST_MISSING * tensors:
        raise UserError(
            f"{model}: not a whole {kind.__name__}; {missing} of the {tensors} tensors of such a model are missing"
        )
    return loaded


def load_clip(model: str) -> tuple[Any, Any]:
    """CLIP on the device, in float32, and its processor.

    Args:
        model: hub id or local folder.

    Raises:
        UserError: a model that can't be loaded or is not CLIP.
    """
    import torch
    from transformers import CLIPModel, CLIPProcessor

    processor = load_pretrained(CLIPProcessor, model)
    clip = load_pretrained(CLIPModel, model, dtype=torch.float32)
    return clip.to(start_processes().device).eval(), processor


def _load_error(error: Exception, kind: str, model: str, local: bool) -> UserError:
    """The error for the person at the shell, for one of the libraries'."""
    reason = reason_of(error)
    if "trust_remote_code" in str(error):
        return UserError(f"{model}: asks to run code that comes with it, which is refused; use another model")
    if Path(model).is_dir():
        return UserError(f"{model}: can't load {kind} from there ({reason})")
    if local and isinstance(error, OSError):
        return missing_model(model, INSTEAD)
    if "gated" in reason:
        return UserError(f"{model}: the hub wants you to accept its licence and to run `hf auth login`")
    return UserError(f"{model}: can't load {kind} ({reason})")


def has_weights(kind: Any) -> bool:
    """Whether `kind` holds weights, unlike a tokenizer or a processor."""
    return "Model" in kind.__name__ or "For" in kind.__name__
