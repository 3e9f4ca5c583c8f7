"""transformers models from the hub or a folder, with errors for the person at the shell."""

from pathlib import Path
from typing import Any

from core.runs.errors import UserError, reason_of

MOST_MISSING = 0.05  # of a model's tensors; published ones may lack an unused pooling layer


def check_model(model: str) -> None:
    """Refuse what can be neither a folder of a model nor a hub id, before torch is imported.

    Raises:
        UserError
    """
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise UserError(f"{model}: not a model's folder (no config.json in it)")
    elif model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UserError(f"{model}: no such folder, and not a hub id (owner/name)")


def load_pretrained(kind: Any, model: str, **options: Any) -> Any:
    """`kind.from_pretrained(model)`.

    Raises:
        UserError: the hub can't be reached or refuses, or the folder holds another kind of model, or half of one.
    """
    try:
        if not is_model(kind):
            return kind.from_pretrained(model, **options)
        loaded, info = kind.from_pretrained(model, output_loading_info=True, **options)
    except Exception as error:  # transformers, safetensors and the hub client raise a dozen kinds
        reason = reason_of(error)
        if Path(model).is_dir():
            raise UserError(f"{model}: can't load {kind.__name__} from there ({reason})") from None
        if "gated" in reason or "401" in reason or "403" in reason:
            raise UserError(f"{model}: the hub wants you to accept its licence and to run `hf auth login`") from None
        raise UserError(
            f"{model}: no such folder here, and the hub has it not or can't be reached ({type(error).__name__}); "
            "pass the folder of a downloaded model as --model"
        ) from None
    missing, tensors = len(info["missing_keys"]), len(loaded.state_dict())
    if missing > MOST_MISSING * tensors:
        raise UserError(f"{model}: no {kind.__name__}, {missing} of whose {tensors} tensors it lacks")
    return loaded


def is_model(kind: Any) -> bool:
    """Whether `kind` holds weights, unlike a tokenizer or a processor."""
    return "Model" in kind.__name__ or "For" in kind.__name__
