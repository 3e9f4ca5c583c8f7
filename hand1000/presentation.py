"""What a finished run of train.py gets beside its model: the gesture feature, sample pictures, a card, the hub."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.diffusion.hub_runs import publish_run
from core.diffusion.model_card import SAMPLES
from core.runs.processes import is_main_process, say, start_processes
from core.runs.sheets import contact_sheet, save_png
from hand1000.gesture_feature import load_gesture_feature, save_gesture_feature
from hand1000.model_card import card_of_run
from hand1000.trained import FEATURE_FILE, model_to_load, trained_model

# torch and diffusers are imported inside draw_samples.

NUM_INFERENCE_STEPS, GUIDANCE_SCALE, BATCH_SIZE = 45, 3.0, 4  # as image_generation.py draws


def present_run(
    folder: Path,
    feature: np.ndarray,
    *,
    validation_prompts: Sequence[str] | None,
    num_validation_images: int,
    push_to_hub: bool,
    hub_model_id: str | None,
    private: bool,
) -> None:
    """All of it, on the main process; for a run that was finished before, what is not there yet.

    Args:
        feature: the gesture feature (63,) that the run was trained with.
        validation_prompts, num_validation_images: pictures to draw for the card.
        push_to_hub, hub_model_id, private: see `push_run`.

    Raises:
        UserError: the hub can't be reached or refuses.
    """
    if not is_main_process():
        return
    if not (folder / FEATURE_FILE).is_file():
        save_gesture_feature(folder / FEATURE_FILE, feature)
    if validation_prompts and (folder / SAMPLES).is_file():
        say(f"{folder / SAMPLES}: taken as it is; delete it to have it drawn again")
    elif validation_prompts:
        draw_samples(folder, validation_prompts, num_validation_images)
    publish_run(folder, card_of_run, push_to_hub=push_to_hub, hub_model_id=hub_model_id, private=private)


def draw_samples(folder: Path, prompts: Sequence[str], num_images: int) -> None:
    """Write samples.png: a row for each prompt, `num_images` start noises, at mu = the Lambda of the training."""
    from core.diffusion.encoding import latent_shape
    from hand1000.generation import Picture, draw_pictures, encode_prompts, load_model

    trained, device = trained_model(folder), start_processes().device
    pipe = load_model(str(folder), model_to_load(str(folder), trained, None))
    embeds = encode_prompts(pipe, prompts, load_gesture_feature(folder / FEATURE_FILE), trained.fusion, device)
    with tempfile.TemporaryDirectory() as name:
        rows = [[Path(name) / f"{row}_{seed}.png" for seed in range(num_images)] for row in range(len(prompts))]
        mu = trained.settings["Lambda"]
        pictures = [Picture(path, row, mu, seed) for row, paths in enumerate(rows) for seed, path in enumerate(paths)]
        draw_pictures(
            pipe,
            embeds,
            pictures,
            device,
            latent_shape=latent_shape(pipe, trained.resolution),
            image_size=0,
            batch_size=BATCH_SIZE,
            guidance_scale=GUIDANCE_SCALE,
            num_inference_steps=NUM_INFERENCE_STEPS,
            mixed_precision="no",
        )
        save_png(contact_sheet(rows, row_labels=prompts), folder / SAMPLES)
