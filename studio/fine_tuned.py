"""The tab of Hand1000: pictures of a prompt by the base and by a fine-tuned run, at one or several values of mu."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from PIL import Image

from core.runs.errors import UserError
from core.runs.files import model_identity
from core.runs.photos import load_photo
from core.runs.sheets import contact_sheet
from hand1000.generation import Picture, draw_pictures, encode_prompts
from hand1000.gesture_feature import feature_hash, load_gesture_feature
from hand1000.gestures import PHRASES, gesture_mentions
from hand1000.trained import trained_model
from studio.jobs import part
from studio.models import base_pipeline, device, shape_of, tuned_pipeline
from studio.offers import Offers, offered

MUS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the sweep
SMALLEST_CELL, LARGEST_CELL = 100, 256  # pixels per side of a picture of the sweep
LONGEST_TEXT = 500  # characters; CLIP reads 77 tokens


class Settings(NamedTuple):
    """How pictures are drawn."""

    seed: int = 0
    num_inference_steps: int = 45
    guidance_scale: float = 3.0


def draw_base(offers: Offers, prompt: str, settings: Settings) -> Image.Image:
    """The base model's picture of a prompt.

    Raises:
        UserError: no prompt, or one that is too long.
    """
    prompt = checked_text(prompt)
    with part("Base model"):
        pipe = base_pipeline(offers)
        embeds = encode_prompts(pipe, [prompt], None, None, device())
        return drawn(offers, pipe, embeds, [1.0], offers.resolution, settings)[0]


def draw_tuned(
    offers: Offers, run: str, feature: str, prompt: str, mus: Sequence[float], settings: Settings
) -> list[Image.Image]:
    """A run's pictures of a prompt, one for each mu, from the same noise.

    Args:
        run, feature: names of what the owner offers.
        mus: shares of the text, 0 to 1.

    Raises:
        UserError: a run or a feature that is not offered or unusable, no prompt, or one that is too long.
    """
    prompt = checked_text(prompt)
    folder = offered(offers.runs, run, "the run")
    array = load_gesture_feature(offered(offers.features, feature, "the gesture feature"))
    with part("Hand1000"):
        trained = trained_model(folder)
        pipe = tuned_pipeline(str(folder), (offers.base, offers.original_config, offers.config))
        embeds = encode_prompts(pipe, [prompt], array, trained.fusion, device())
        return drawn(offers, pipe, embeds, mus, trained.resolution, settings)


def drawn(
    offers: Offers, pipe: StableDiffusionPipeline, embeds, mus: Sequence[float], resolution, settings: Settings
) -> list[Image.Image]:
    """What `draw_pictures` writes, read again."""
    with tempfile.TemporaryDirectory(dir=offers.own_folder) as folder:
        paths = [Path(folder) / f"{place}.png" for place in range(len(mus))]
        draw_pictures(
            pipe,
            embeds,
            [Picture(path, 0, mu, settings.seed) for path, mu in zip(paths, mus)],
            device(),
            latent_shape=shape_of(pipe, resolution),
            image_size=0,
            batch_size=len(mus),
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.num_inference_steps,
            mixed_precision=offers.mixed_precision,
        )
        return [load_photo(path) for path in paths]


def sweep_strip(pictures: Sequence[Image.Image], mus: Sequence[float]) -> Image.Image:
    """The pictures of a sweep in one row, under their mu."""
    cell = min(max(pictures[0].width, SMALLEST_CELL), LARGEST_CELL)  # small ones leave the labels legible on a phone
    return contact_sheet([list(pictures)], column_labels=[f"mu = {mu:g}" for mu in mus], cell=cell)


def checked_text(text: object) -> str:
    """A visitor's text without blanks at its ends.

    Raises:
        UserError: there is none, or it is too long.
    """
    text = str(text or "").strip()
    if not text:
        raise UserError("write a text first: what is to be drawn?")
    if len(text) > LONGEST_TEXT:
        raise UserError(
            f"the text has {len(text)} characters; at most {LONGEST_TEXT}, of which the model reads 77 tokens"
        )
    return text


def phrase_of(offers: Offers, run: str) -> str:
    """The gesture phrase that a run was trained with; "" where it is not known."""
    arguments = trained_model(offered(offers.runs, run, "the run")).settings
    return PHRASES.get(str(arguments.get("gesture")), "")


def with_phrase(prompt: str, phrase: str) -> str:
    """The prompt with a run's gesture phrase at its end, in place of that of another run."""
    for other in gesture_mentions(prompt):
        if other in PHRASES.values():
            prompt = prompt.replace(other, "")
    return f"{prompt.strip().rstrip(',')} {phrase}".strip()


def feature_of(offers: Offers, run: str) -> str | None:
    """The name of the offered feature that a run was trained with; None where it is not offered."""
    wanted = trained_model(offered(offers.runs, run, "the run")).feature_sha256
    for name, path in offers.features.items():
        try:
            if feature_hash(load_gesture_feature(path)) == wanted:
                return name
        except UserError:  # a file of make demo that is none
            continue
    return None


def warnings_of(offers: Offers, run: str, feature: str, prompt: str) -> list[str]:
    """What a visitor should know before reading anything into the pictures."""
    trained = trained_model(offered(offers.runs, run, "the run"))
    array = load_gesture_feature(offered(offers.features, feature, "the gesture feature"))
    found = []
    if feature_hash(array) != trained.feature_sha256:
        found.append("this is not the gesture feature that the run was trained with")
    if trained.settings.get("model_fingerprint") not in (None, model_identity(offers.base)):
        found.append("the run was trained from another base model than the one beside it")
    phrase = phrase_of(offers, run)
    if phrase and phrase not in prompt:
        found.append(f"the prompt lacks the run's gesture phrase, “{phrase}”")
    return found
