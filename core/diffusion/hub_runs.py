"""Runs on the Hugging Face hub: a finished run folder goes there by --push_to_hub, and comes back by its id.

All through huggingface_hub, with its own login (`hf auth login`) and cache. Nothing that is fetched is a pickle.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from core.diffusion.hub import hub_answers
from core.diffusion.model_card import CARD, write_card
from core.diffusion.model_path import is_hub_id
from core.diffusion.options import HUB_OPTIONS
from core.runs.errors import UserError, reason_of
from core.runs.processes import say

LEFT_HERE = {"checkpoints", "logs", "validation", CARD}  # validation pictures show photos of the training data
MESSAGE = "End of training"  # of the commit, as of diffusers' examples


def check_push(push_to_hub: bool, hub_model_id: str | None, output_dir: Path) -> None:
    """Refuse a --push_to_hub that can't work, before anything heavy is imported and without asking the hub.

    Raises:
        UserError: no token, no id that the hub takes, HF_HUB_OFFLINE, or --hub_model_id alone.
    """
    if not push_to_hub:
        if hub_model_id:
            raise UserError("--hub_model_id is for --push_to_hub; pass that, too")
        return
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = hub_model_id or output_dir.resolve().name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        reason = reason_of(error)
        raise UserError(f"--push_to_hub: '{name}' can't be a hub id; pass --hub_model_id ({reason})") from None
    if constants.HF_HUB_OFFLINE:
        raise UserError("--push_to_hub: HF_HUB_OFFLINE=1 forbids it; unset that")
    if not get_token():
        raise UserError("--push_to_hub: no login for the hub; run `hf auth login` first, or set HF_TOKEN")


def refuse_push(flag: str, train_args: Sequence[str]) -> None:
    """An experiment pushes nothing: its models would all get the same name on the hub.

    Args:
        flag: of the experiment, such as "--train_args".
        train_args: what it passes on to every training.

    Raises:
        UserError: a training is told to push.
    """
    given = {argument.partition("=")[0] for argument in train_args}
    if given & {f"--{option}" for option in HUB_OPTIONS}:
        raise UserError(
            f"{flag}: an experiment pushes nothing, for its models would all get the same name; push a finished run by "
            "the command that trained it, with --push_to_hub --hub_model_id NAME"
        )


def publish_run(
    folder: Path,
    card_of_run: Callable[[Path, str], str],
    *,
    push_to_hub: bool,
    hub_model_id: str | None,
    private: bool,
) -> None:
    """Write a finished run's model card into its folder and, if asked to, put the run on the hub (see `push_run`).

    Args:
        card_of_run: the card of the run in a folder, for the name that it is loaded by.

    Raises:
        UserError: the hub can't be reached or refuses.
    """
    write_card(folder, card_of_run(folder, str(folder)))
    if push_to_hub:
        push_run(folder, hub_model_id, functools.partial(card_of_run, folder), private=private)


def push_run(folder: Path, hub_model_id: str | None, card_for: Callable[[str], str], *, private: bool = False) -> None:
    """Put a finished run on the hub in one commit, without its checkpoints, logs and validation pictures.

    Args:
        hub_model_id: owner/name, or a name of one's own; None: the folder's name.
        card_for: gives the model card for the run's full id; the folder's own card stays as it is.
        private: where the repository has to be made, make it a private one.

    Raises:
        UserError: the hub can't be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        api = HfApi()
        repo = api.create_repo(hub_model_id or folder.resolve().name, exist_ok=True, private=private or None)
        operations = [CommitOperationAdd(CARD, card_for(repo.repo_id).encode())]
        operations += [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files_of_run(folder)]
        api.create_commit(repo.repo_id, operations, commit_message=MESSAGE)
    except UserError:
        raise
    except Exception as error:  # the hub client and its HTTP client raise a dozen kinds
        raise UserError(
            f"{folder}: the run is finished, but not on the hub ({reason_of(error)}); the same command pushes it again"
        ) from None
    say(f"{folder}: pushed to {repo}")


def files_of_run(folder: Path) -> list[Path]:
    """What of a run folder goes to the hub, but for its card."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path.relative_to(folder).parts[0] not in LEFT_HERE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def fetch_run(model: str, record: str, patterns: Sequence[str], revision: str | None = None) -> Path | None:
    """A run of the hub as a folder of the hub's cache, downloaded where it is not there yet.

    Args:
        model: perhaps owner/name of a run on the hub.
        record: the file that makes a folder a run, such as hand1000.json.
        patterns: the files that are fetched beside it; none of them may be a kind that runs code when it is opened.
        revision: branch, tag or commit.

    Returns:
        None where `model` is no id of the hub, holds no such record (as base models don't), or is neither in the
        cache nor can be asked for.

    Raises:
        UserError: the hub has no such model or revision, refuses, or breaks off.
    """
    if not is_hub_id(model):
        return None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    local = not hub_answers()
    try:
        found = hf_hub_download(model, record, revision=revision, local_files_only=local)
    except EntryNotFoundError:
        return None
    except GatedRepoError:
        raise UserError(f"{model}: the hub wants you to accept its licence and to run `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{model}: no such folder here, and no such model on the hub (for a private one run `hf auth login`)"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{model}: has no revision '{revision}'") from None
    except Exception as error:  # the hub client and its HTTP client raise a dozen kinds
        raise UserError(f"{model}: can't be fetched from the hub ({reason_of(error)})") from None
    commit = Path(found).parent.name  # the rest is of the same commit, whatever is pushed meanwhile
    try:
        snapshot_download(
            model,
            revision=commit,
            allow_patterns=[record, *patterns],
            ignore_patterns="checkpoints/*",
            local_files_only=local,
        )
    except Exception as error:
        raise UserError(f"{model}: can't be fetched from the hub as a whole ({reason_of(error)})") from None
    return Path(found).parent
