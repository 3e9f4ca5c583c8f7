"""What a folder of AttentionHand's weights tells before anything is loaded: whether it is finished, and its hash.

output/attentionhand/
  attentionhand.json                    the run's record: settings, steps, versions; "finished" comes last
  config.json, diffusion_pytorch_model.safetensors    the visual attention stage, a diffusers ControlNet
  unet/                                 the UNet, where --sd_unlocked trained its decoder
  losses.csv                            step,global_loss,local_loss
  checkpoints/checkpoint-500/           a ControlNet too, with losses.csv, optimizer.pt and state.json
  validation/step_000500.png
  README.md, samples.png                the model card, and the last validation pictures without the photos
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

from core.diffusion.hub import hub_answers, missing_model
from core.diffusion.hub_runs import fetch_run
from core.diffusion.model_path import is_hub_id
from core.runs.errors import UserError
from core.runs.files import fingerprint
from core.runs.run import Record, Run, check_content, read_record, refuse_unfinished
from core.runs.schema import positive

TRAINING, PICTURES = "attentionhand.json", "inference.json"  # records
PICTURE_LIST = "pictures.jsonl"  # each picture's label and text, a JSON object a line
STAGE_FILE = "diffusion_pytorch_model.safetensors"
# What is fetched of a run on the hub, beside its record.
RUN_FILES = ("config.json", STAGE_FILE, "unet/config.json", f"unet/{STAGE_FILE}")
LOSS_COLUMNS = ("step", "global_loss", "local_loss")


class TrainingFacts(TypedDict):
    """What is taken from the record of a training."""

    steps: Annotated[int, positive]


class PicturesFacts(TypedDict):
    """What is taken from the record of drawn pictures."""

    weights: list[str]  # paths


def local_weights(weights: Path) -> Path:
    """Weights on this machine, or those of a run on the hub, fetched into its cache.

    Raises:
        UserError: no such file or folder and no such run on the hub, or the hub can't be reached.
    """
    if weights.exists():
        return weights
    fetched = fetch_run(str(weights), TRAINING, RUN_FILES)
    if fetched is None and is_hub_id(str(weights)):
        if not hub_answers():
            raise missing_model(str(weights), "the folder of a downloaded run")
        raise UserError(f"{weights}: no such run folder or file, and on the hub no run of attentionhand.train")
    if fetched is None:
        raise UserError(f"{weights}: no such run folder or file (--weights)")
    return fetched


def finished_training(weights: Path) -> Record | None:
    """The record of the training that a run folder holds; None where `weights` are of another kind.

    A checkpoint of a training is a diffusers folder like any other, so it can be used before the training is finished.

    Raises:
        UserError: the training is unfinished, or its record is damaged.
    """
    record = read_record(weights / TRAINING)
    if record:
        how = "with --resume_from_checkpoint latest"
        if checkpoints := Run(weights / TRAINING, {}, what="training").checkpoints():
            how += f", or give its checkpoint {checkpoints[-1]}"
        refuse_unfinished(weights / TRAINING, record, "training", how)
    return record


def steps_of(folder: Path, record: Record) -> int:
    """How many steps a finished training has made. Raises UserError where its record does not tell."""
    check_content(folder / TRAINING, record.facts, TrainingFacts)
    return record.facts["steps"]


def weights_fingerprint(weights: Path) -> str:
    """Of a file, or of the weights in a folder without its checkpoints and pictures."""
    if weights.is_file():
        return fingerprint(weights)
    parts = [weights / "config.json", *sorted(weights.glob("diffusion_pytorch_model*")), weights / "unet"]
    return "".join(fingerprint(part) for part in parts if part.exists())


def identity_of_weights(paths: Sequence[Path]) -> str | None:
    """The fingerprints of one or several weights; None where there are none."""
    return "".join(map(weights_fingerprint, paths)) or None
