"""A finished run folder of train.py: what its record says of the model, checked."""

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from core.diffusion.hub_runs import fetch_run
from core.diffusion.model_path import check_model_path, is_single_file
from core.runs.errors import UserError
from core.runs.files import fingerprint_if_local
from core.runs.run import check_content, read_record, refuse_unfinished
from core.runs.schema import a_seed, positive

RECORD, FUSION_FILE, FEATURE_FILE = "hand1000.json", "fusion.safetensors", "feature.npy"
LORA_FILE = "pytorch_lora_weights.safetensors"
# What is fetched of a run on the hub: the parts of a Stable Diffusion or a LoRA for one, and what is beside them.
RUN_FILES = (FUSION_FILE, FEATURE_FILE, "model_index.json", LORA_FILE) + tuple(
    f"{part}/*.{kind}"
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    for kind in ("json", "safetensors", "txt")
)


# What is taken from the record


class TrainedSettings(TypedDict):
    resolution: Annotated[int, positive]
    feature_sha256: str


class LoraSettings(TypedDict):
    lora_rank: Annotated[int, positive]
    pretrained_model_name_or_path: str
    original_config: str | None
    config: str | None
    revision: str | None
    variant: str | None
    model_fingerprint: str | None


class FusionSeed(TypedDict):
    seed: Annotated[int, a_seed]


class FusionFile(TypedDict):
    file: Literal["fusion.safetensors"]


class TrainedFacts(TypedDict):
    fusion: FusionSeed | FusionFile


class FusionWeights(NamedTuple):
    """Where the fusion layer of a model comes from."""

    seed: int = 0
    file: Path | None = None  # instead of the seed


class StoredModel(NamedTuple):
    """A Stable Diffusion, as `load_stable_diffusion` takes it."""

    path: str  # hub id, diffusers folder or single file
    original_config: str | None = None
    config: str | None = None
    revision: str | None = None
    variant: str | None = None


class TrainedModel(NamedTuple):
    """A finished run."""

    settings: dict[str, Any]  # all that its weights depend on
    resolution: int  # pixels per side that it was trained on
    feature_sha256: str  # of the gesture feature that it was trained with
    fusion: FusionWeights
    lora_base: StoredModel | None = None  # what the run's LoRA belongs to; None: the run folder is a whole model


def fusion_fact(fusion_seed: int, fusion_checkpoint: Path | None) -> dict[str, Any]:
    """What a record says of the fusion layer: its seed, or that its weights lie in the run folder."""
    return {"file": FUSION_FILE} if fusion_checkpoint else {"seed": fusion_seed}


def local_run(model: str, revision: str | None = None) -> Path:
    """The folder of a run: in the hub's cache, where `model` is the id of a run on the hub; else just this path.

    Raises:
        UserError: see `fetch_run`.
    """
    return fetch_run(model, RECORD, RUN_FILES, revision) or Path(model)


def read_trained_model(folder: Path) -> TrainedModel | None:
    """The run in a folder; None where there is none.

    Raises:
        UserError: it is unfinished, or its record is damaged.
    """
    path = folder / RECORD
    record = read_record(path)
    if record is None:
        return None
    refuse_unfinished(path, record, "training")
    check_content(path, record.settings, TrainedSettings)
    check_content(path, record.facts, TrainedFacts)
    settings, fusion = record.settings, record.facts["fusion"]
    weights = FusionWeights(file=folder / FUSION_FILE) if "file" in fusion else FusionWeights(fusion["seed"])
    lora_base = None
    if settings.get("lora_rank") is not None:
        check_content(path, settings, LoraSettings)
        names = StoredModel._fields[1:]
        lora_base = StoredModel(settings["pretrained_model_name_or_path"], *(settings[name] for name in names))
    return TrainedModel(settings, settings["resolution"], settings["feature_sha256"], weights, lora_base)


def own_feature(folder: Path) -> Path | None:
    """The gesture feature that lies in a run folder, if one does."""
    path = folder / FEATURE_FILE
    return path if path.is_file() else None


def trained_model(folder: Path) -> TrainedModel:
    """As `read_trained_model`, and raises UserError where there is no run either."""
    model = read_trained_model(folder)
    if model is None:
        raise UserError(f"{folder}: not a run folder of train.py (no {RECORD} in it)")
    return model


def model_to_load(
    ckpt: str, trained: TrainedModel | None, base_model: str | None, **configs: str | None
) -> StoredModel:
    """Which Stable Diffusion to draw with: `ckpt` itself, or of a run with a LoRA its base model. Loads nothing.

    Args:
        base_model: where the base model of a LoRA is now, if not where the run found it.
        configs: `original_config` and `config` of a single file, `revision` and `variant` of a hub id.

    Raises:
        UserError: as `check_model_path`, or the base model has changed.
    """
    model = StoredModel(ckpt, **configs)
    if trained and trained.lora_base:
        own = StoredModel(base_model, **{**configs, "revision": None}) if base_model else None
        model = own or trained.lora_base  # the revision is that of `ckpt`
    elif base_model:
        raise UserError(f"--pretrained_model_name_or_path is for runs of train.py --lora_rank; {ckpt} is a whole model")
    try:
        check_model_path(model.path, model.original_config, model.config, model.revision)
    except UserError as error:
        if model.path == ckpt:
            raise
        raise UserError(f"{error}; it is the base model of {ckpt}: see --pretrained_model_name_or_path") from None
    if trained and trained.lora_base:
        then, now = trained.settings["model_fingerprint"], fingerprint_if_local(model.path)
        if then and now and then != now:
            raise UserError(
                f"{ckpt}: trained on another base model than {model.path} is now; name the right one with "
                "--pretrained_model_name_or_path"
            )
    return model


def fusion_of_model(ckpt: str, trained: TrainedModel | None) -> FusionWeights:
    """Where a model's fusion layer comes from.

    Raises:
        UserError: it has none.
    """
    if trained:
        return trained.fusion
    if ckpt.endswith(".ckpt"):
        from core.diffusion.unpickling import load_pickle

        if "fusion_model_state_dict" in load_pickle(Path(ckpt)):
            return FusionWeights(file=Path(ckpt))
    if not Path(ckpt).exists():
        raise UserError(f"{ckpt}: no such folder here, and a model of the hub has no fusion, so --mu must be 1")
    hint = " (the run folder that it came from has one)" if is_single_file(ckpt) else ""
    raise UserError(f"{ckpt}: a model without fusion{hint}, so --mu must be 1")
