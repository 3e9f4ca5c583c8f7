"""Models that are not on this machine: whether the Hugging Face hub can be asked for them.

Without this, a machine that cannot reach the hub spends minutes on the libraries' attempts and prints a line for each.
"""

import functools
import threading
from pathlib import Path

from core.runs.errors import UserError

SECONDS_TO_ANSWER = 5  # for the hub; name servers and firewalls may keep a connection waiting much longer


@functools.cache
def hub_answers() -> bool:
    """Whether the hub (HF_ENDPOINT, or huggingface.co) can be asked; never with HF_HUB_OFFLINE=1.

    Where it cannot, `from_pretrained` is to be told `local_files_only`: the hub's cache serves without the network.
    """
    from huggingface_hub import constants, get_session

    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER).status_code)
        except Exception:  # no name, no route, no answer, no certificate: the HTTP client raises a dozen kinds
            return

    if constants.HF_HUB_OFFLINE:
        return False
    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(SECONDS_TO_ANSWER)
    return bool(answers) and answers[0] < 500


def check_available(model: str, part: str, instead: str, revision: str | None = None) -> None:
    """Refuse a model that neither the hub nor its cache can give, before torch is imported.

    Args:
        part: a file that every such model has: "config.json" of transformers, "model_index.json" of diffusers.
        instead: what to pass instead, such as "the folder of a downloaded model as --model".
        revision: of the model, where not its main one is wanted.

    Raises:
        UserError
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(model).exists() or hub_answers():
        return
    try:
        cached = try_to_load_from_cache(model, part, revision=revision)
    except HFValidationError:
        raise UserError(f"{model}: no such folder, and not a hub id (owner/name)") from None
    if not isinstance(cached, str):
        raise missing_model(model, instead)


def missing_model(model: str, instead: str) -> UserError:
    """The error for a model that is not on this machine and cannot be downloaded.

    Args:
        instead: what to pass instead, such as "the folder of a downloaded model as --model".
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return UserError(
            f"{model}: no such folder here and not in the hub's cache, and HF_HUB_OFFLINE=1 forbids asking the hub; "
            f"unset it, or pass {instead}"
        )
    return UserError(
        f"{model}: no such folder here, and the hub cannot be reached ({constants.ENDPOINT}); pass {instead}, or put "
        "the model into the hub's cache (HF_HUB_OFFLINE=1 uses nothing else)"
    )
