"""What a folder of AttentionHand's weights tells before anything is loaded: whether it is finished, and its hash.

output/attentionhand/
  attentionhand.json                    the run's record: settings, steps, versions; "finished" comes last
  config.json, diffusion_pytorch_model.safetensors    the visual attention stage, a diffusers ControlNet
  unet/                                 the UNet, where --sd_unlocked trained its decoder
  losses.csv                            step,global_loss,local_loss
  checkpoints/checkpoint-500/           a ControlNet too, with losses.csv, optimizer.pt and state.json
  validation/step_000500.png
"""

from collections.abc import Sequence
from pathlib import Path

from core.runs.files import fingerprint, fingerprint_if_local
from core.runs.run import Record, Run, damaged, read_record, refuse_unfinished

TRAINING, PICTURES = "attentionhand.json", "inference.json"  # records
PICTURE_LIST = "pictures.jsonl"  # each picture's label and text, a JSON object a line
STAGE_FILE = "diffusion_pytorch_model.safetensors"
LOSS_COLUMNS = ("step", "global_loss", "local_loss")


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
    steps = record.facts.get("steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise damaged(folder / TRAINING, f"its steps are {steps!r}")
    return steps


def weights_fingerprint(weights: Path) -> str:
    """Of a file, or of the weights in a folder without its checkpoints and pictures."""
    if weights.is_file():
        return fingerprint(weights)
    parts = [weights / "config.json", *sorted(weights.glob("diffusion_pytorch_model*")), weights / "unet"]
    return "".join(fingerprint(part) for part in parts if part.exists())


def identity_of_weights(paths: Sequence[Path]) -> str | None:
    """The fingerprints of one or several weights; None where there are none."""
    return "".join(map(weights_fingerprint, paths)) or None


def model_identity(model: str | None) -> str | None:
    """The hash of a model on this machine, whatever its path, or the name of a model of the hub."""
    return fingerprint_if_local(model) or model
