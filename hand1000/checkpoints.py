"""Checkpoints of a training: the state of training and the UNet, written by `Run`, checked whole before they are used.

A checkpoint is a folder: `unet/` (loads with diffusers' UNet2DConditionModel) or `lora.safetensors`, `losses.csv`,
`state.json`, and in the staged schedule also `embeddings.safetensors`, and in its Stage III `optimizer.pt`. In the
staged schedule's Stage II the UNet is still the base model's, so that there are no weights.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from core.diffusion.stable_diffusion import tensor_bytes
from core.diffusion.unpickling import load_optimizer_state
from core.runs.errors import reason_of
from core.runs.run import Run, damaged_checkpoint, read_losses, write_losses
from hand1000.hyperparameters import LOSS_COLUMNS, Hyperparameters
from hand1000.lora import lora_weights, trained_weights
from hand1000.schedules import (
    BOTH,
    EMBEDDING,
    FINETUNE,
    TrainingState,
    photos_of_work,
    stage_three_steps,
    stages_of,
)

WEIGHTS, LORA_WEIGHTS = "unet/diffusion_pytorch_model.safetensors", "lora.safetensors"
EMBEDDINGS, OPTIMIZER = "embeddings.safetensors", "optimizer.pt"
SCALER_KEYS = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}  # fp16 only


def save_checkpoint(run: Run, unet: UNet2DConditionModel, state: TrainingState, *, keep: int) -> None:
    """Write checkpoints/checkpoint-{photos}, or warn of a full disk; see `Run.save_checkpoint`."""

    def write(folder: Path) -> None:
        if state.stage != EMBEDDING:
            if lora := lora_weights(unet):
                save_file(lora, folder / LORA_WEIGHTS)
            else:
                unet.save_pretrained(folder / "unet")
        if state.prompt_embeds:
            save_file({"prompt_embeds": torch.stack(state.prompt_embeds)}, folder / EMBEDDINGS)
        if state.optimizer_state:
            torch.save(state.optimizer_state, folder / OPTIMIZER)
        write_losses(folder / "losses.csv", LOSS_COLUMNS, state.losses)

    facts = {"stage": state.stage, "done": state.done, "photos": state.photos, "scaler": state.scaler_state}
    facts["moments"] = len(state.optimizer_state["state"]) if state.optimizer_state else 0
    run.save_checkpoint(state.photos, write, state=facts, size=checkpoint_bytes(unet, state), keep=keep)


def checkpoint_bytes(unet: torch.nn.Module, state: TrainingState) -> int:
    """About what a checkpoint takes: the trained weights, Adam's two moments where they are kept, the embeddings."""
    copies = (state.stage != EMBEDDING) + (2 if state.optimizer_state else 0)
    return copies * tensor_bytes(trained_weights(unet).values()) + tensor_bytes(state.prompt_embeds)


def load_checkpoint(
    run: Run, checkpoint: Path, pipe: StableDiffusionPipeline, params: Hyperparameters, count: int
) -> TrainingState:
    """Check a checkpoint whole, then put its weights into `pipe.unet` and return how far training had come.

    Args:
        count: how many photos the run has.

    Raises:
        UserError: a part of it is missing, damaged, or does not fit this run.
    """
    facts = run.state_of(checkpoint)
    try:
        state = checked_state(facts, params, count)
        state.losses = checked_losses(checkpoint / "losses.csv", state, params, count)
        if state.stage != BOTH:
            embeddings = state.done if state.stage == EMBEDDING else count
            shape = (embeddings, pipe.tokenizer.model_max_length, pipe.text_encoder.config.hidden_size)
            state.prompt_embeds = checked_embeddings(checkpoint / EMBEDDINGS, shape)
        if state.stage == FINETUNE:
            weights = trained_weights(pipe.unet).values()
            state.optimizer_state = load_optimizer_state(checkpoint / OPTIMIZER, weights, facts["moments"])
        if state.stage != EMBEDDING:
            lora = lora_weights(pipe.unet)
            # Not through diffusers, which fills in random numbers for weights that are not there.
            weights = load_file(checkpoint / (LORA_WEIGHTS if lora else WEIGHTS))
            if lora and weights.keys() != lora.keys():
                raise ValueError(f"{LORA_WEIGHTS}: not the weights of a LoRA of this rank")
            pipe.unet.load_state_dict(weights, strict=not lora)
    except Exception as error:  # json, safetensors and torch each raise their own
        raise damaged_checkpoint(checkpoint, reason_of(error)) from None
    return state


def checked_state(facts: dict[str, Any], params: Hyperparameters, count: int) -> TrainingState:
    """Raises ValueError where the facts of state.json can't be those of this run."""
    stage, done, scaler = facts.get("stage"), facts.get("done"), facts.get("scaler")
    if stage not in stages_of(params):
        raise ValueError(f"state.json: {stage!r} is not a stage of this schedule")
    most = stage_three_steps(count, params) if stage == FINETUNE else count
    if type(done) is not int or not 1 <= done <= most:
        raise ValueError(f"state.json: {done!r} is done, not 1 to {most}")
    photos = photos_of_work(stage, done, count, params)
    if facts.get("photos") != photos:
        raise ValueError(f"state.json: the work of {facts.get('photos')!r} photos, not {photos}")
    if not isinstance(scaler, dict) or set(scaler) != (SCALER_KEYS if params.mixed_precision == "fp16" else set()):
        raise ValueError("state.json: not the loss scale of this precision")
    return TrainingState(stage, done, photos, scaler_state=scaler)


def checked_losses(
    path: Path, state: TrainingState, params: Hyperparameters, count: int
) -> list[tuple[str, str, int, float]]:
    """Raises ValueError or UserError where losses.csv does not hold what the work done has left there."""
    rows = [(image, stage, int(step), float(loss)) for image, stage, step, loss in read_losses(path, LOSS_COLUMNS)]
    expected = {
        BOTH: state.done * (params.embedding_steps + params.finetune_steps),
        EMBEDDING: state.done * params.embedding_steps,
        FINETUNE: count * params.embedding_steps + state.done * params.global_batch_size,
    }[state.stage]
    if len(rows) != expected:
        raise ValueError(f"losses.csv has {len(rows)} losses, not {expected}")
    return rows


def checked_embeddings(path: Path, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Raises ValueError, or what safetensors raises, where the file does not hold embeddings of this shape."""
    embeddings = load_file(path)["prompt_embeds"]
    if embeddings.shape != shape or embeddings.dtype != torch.float32:
        raise ValueError(f"{path.name}: {embeddings.dtype} of shape {tuple(embeddings.shape)}, not {shape}")
    return list(embeddings)
