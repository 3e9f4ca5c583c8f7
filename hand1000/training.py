"""What surrounds Stages II and III in train.py: reading and encoding the photos, and writing the run folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.runs.errors import UserError
from core.runs.files import atomic_file, atomic_parts, fingerprint_if_local, sha256_of_files
from core.runs.photos import unreadable_photos
from core.runs.processes import is_main_process, num_processes, say, start_processes
from core.runs.run import saving, warn_of_small_disk, write_losses
from core.runs.software import software
from hand1000.gesture_feature import compute_gesture_feature, feature_hash, load_gesture_feature
from hand1000.gesture_files import GestureFiles
from hand1000.hyperparameters import LOSS_COLUMNS, STAGED, Hyperparameters
from hand1000.trained import FUSION_FILE, LORA_FILE, fusion_fact

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from hand1000.schedules import TrainingState
    from hand1000.stages import Photos

# torch and diffusers are imported inside functions: a mistake in the lists is named at once.


# Reading and encoding


def read_photos_and_captions(
    files: GestureFiles, *, max_train_images: int | None = None, skip_bad_images: bool = False
) -> tuple[list[Path], list[str]]:
    """The listed photos, all of them readable, and their enriched captions.

    Raises:
        UserError: photos or lists are missing or do not agree, or a photo can't be read (unless `skip_bad_images`).
    """
    if not files.photos.is_dir():
        raise UserError(f"{files.photos}: no such folder; put the gesture's photos there")
    names, captions = files.read(files.enriched)
    photos = [files.photos / name for name in names[:max_train_images]]
    for photo in photos:
        if not photo.is_file():
            raise UserError(f"{photo}: listed in {files.names} but not there")
    errors = unreadable_photos(photos)
    bad = [error for error in errors if error]
    if bad and not skip_bad_images:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{others}, or pass --skip_bad_images")
    for error in bad:
        say(f"skipped: {error}")
    pairs = [(photo, caption) for photo, caption, error in zip(photos, captions, errors) if not error]
    if not pairs:
        raise UserError(f"{files.names}: none of its photos can be read")
    return [photo for photo, _ in pairs], [caption for _, caption in pairs]


def stage_one(files: GestureFiles, *, skip_bad_images: bool) -> np.ndarray:
    """The gesture feature (63,) from its file, which Stage I makes where it is missing; several processes wait for it.

    Raises:
        UserError: as `load_gesture_feature` and `compute_gesture_feature`.
    """
    if files.feature.is_file():
        load_gesture_feature(files.feature)  # or UserError
        say(f"{files.feature}: taken as it is; delete it to have Stage I run again")
    elif is_main_process():
        compute_gesture_feature(files.photos, files.feature, skip_bad_images=skip_bad_images)
    if num_processes() > 1:
        start_processes().wait_for_everyone()
    return load_gesture_feature(files.feature)


def input_hashes(
    photos: Sequence[Path], captions: Sequence[str], feature: np.ndarray, base_model: str, params: Hyperparameters
) -> dict[str, Any]:
    """What a training's inputs are remembered by."""
    return {
        "photos": len(photos),
        "photos_sha256": sha256_of_files(photos),
        "captions_sha256": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "feature_sha256": feature_hash(feature),
        "model_fingerprint": fingerprint_if_local(base_model),
        "fusion_fingerprint": fingerprint_if_local(params.fusion_checkpoint),
    }


def check_base_model(pipe: "StableDiffusionPipeline", params: Hyperparameters, *, save_single_file: bool) -> None:
    """Refuse at once what would otherwise fail hours later.

    Raises:
        UserError: the model can't be written as a single file, or the fusion weights belong to another text encoder.
    """
    from core.diffusion.single_file import check_convertible
    from hand1000.fusion_weights import fusion_features, open_weights

    if save_single_file:
        check_convertible(pipe)
    if params.fusion_checkpoint:
        open_weights(params.fusion_checkpoint, *fusion_features(pipe.text_encoder.config.hidden_size))


def encode(
    pipe: "StableDiffusionPipeline",
    folder: Path,
    photos: Sequence[Path],
    captions: Sequence[str],
    feature: np.ndarray,
    params: Hyperparameters,
    device: "torch.device | str",
) -> "Photos":
    """The photos' latents and double-fused embeddings, once and up front; then the VAE and text encoder are idle.

    Args:
        folder: of the photos, which are named by their paths in it.
        feature: the gesture feature, (63,) float32.
        device: where to compute; the result is on the CPU.
    """
    import torch

    from core.diffusion.encoding import encode_photos, encode_texts, latent_shape
    from hand1000.draws import photo_draws, photo_seed
    from hand1000.fusion import double_fusion, fuse
    from hand1000.stages import Photos

    shape = latent_shape(pipe, params.resolution)
    seeds = [photo_seed(params, place) for place in range(len(photos))]
    posterior_noise = [photo_draws(seed, shape).posterior_noise for seed in seeds]
    latents = encode_photos(pipe.vae, photos, params.resolution, posterior_noise, device)
    prompt_embeds = encode_texts(pipe, captions, device)
    fused_embeds = fuse(
        prompt_embeds,
        torch.from_numpy(feature),
        seed=params.fusion_seed,
        weights_file=params.fusion_checkpoint,
        device=device,
    )
    names = [photo.relative_to(folder).as_posix() for photo in photos]
    return Photos(names, latents, double_fusion(prompt_embeds, fused_embeds, params.Lambda))


# Writing


def run_facts(base_model: str, params: Hyperparameters, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a run folder's record says beside its settings."""
    fusion = fusion_fact(params.fusion_seed, params.fusion_checkpoint)
    return {"base_model": base_model, "fusion": fusion, "arguments": arguments, "software": software()}


def warn_of_full_disk(
    folder: Path, pipe: "StableDiffusionPipeline", params: Hyperparameters, *, save_single_file: bool
) -> None:
    """Say before training starts when the disk will not hold the next checkpoint beside the finished model."""
    from core.diffusion.stable_diffusion import model_bytes, tensor_bytes
    from hand1000.lora import trained_weights

    trained = tensor_bytes(trained_weights(pipe.unet).values())
    needed = trained * (3 if params.schedule == STAGED else 1)  # Adam keeps two values a weight
    if params.lora_rank:
        needed += trained
    else:
        needed += model_bytes(pipe.unet, pipe.vae, pipe.text_encoder) * (2 if save_single_file else 1)
    needed += params.fusion_checkpoint.stat().st_size if params.fusion_checkpoint else 0
    warn_of_small_disk(folder, needed)


def save_model(
    folder: Path,
    pipe: "StableDiffusionPipeline",
    state: "TrainingState",
    params: Hyperparameters,
    single_file: Path | None,
) -> None:
    """Write the finished model, or its LoRA, and the losses on the main process; model_index.json comes last.

    Raises:
        UserError: the disk is full.
    """
    from core.diffusion.single_file import save_single_file
    from hand1000.fusion_weights import save_fusion_weights
    from hand1000.lora import save_lora

    if not is_main_process():
        return
    with saving(folder):
        if params.fusion_checkpoint:
            with atomic_file(folder / FUSION_FILE) as temporary:
                save_fusion_weights(params.fusion_checkpoint, temporary, pipe.text_encoder.config.hidden_size)
        if single_file:
            save_single_file(pipe, single_file)
        write_losses(folder / "losses.csv", LOSS_COLUMNS, state.losses)
        if params.lora_rank:
            with atomic_parts(folder, last=LORA_FILE) as temporary:
                save_lora(pipe.unet, temporary)
        else:
            with atomic_parts(folder, last="model_index.json") as temporary:
                pipe.save_pretrained(temporary)


def add_single_file(folder: Path, single_file: Path) -> None:
    """`--save_single_file` for a run that was finished without it."""
    from core.diffusion.single_file import check_convertible, save_single_file
    from core.diffusion.stable_diffusion import load_stable_diffusion

    if not is_main_process() or single_file.is_file():
        return
    pipe = load_stable_diffusion(str(folder))
    check_convertible(pipe)
    save_single_file(pipe, single_file)
    say(f"{single_file}: written")
