"""The tab of AttentionHand: pictures of a hand's mesh and a text, and how well their hands follow the label."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from attentionhand.generation import control_image, draw_batch
from attentionhand.label_errors import LabelledHand, find_all, hand_errors
from attentionhand.text_attention import layers_at
from core.diffusion.encoding import encode_texts
from core.diffusion.sampling import start_noise
from core.hands.detection import Hand
from core.runs.errors import UserError
from core.runs.processes import counted, progress
from studio.fine_tuned import Settings, checked_text
from studio.jobs import part
from studio.models import controlled, device, own_resolution, shape_of, uncontrolled
from studio.offers import Offers, offered
from studio.posed_hand import Scene

BY_TEXT_ALONE = "none: the base model, by the text alone"
TAS_STEPS = 5  # as inference's default
SHOWN = 256  # pixels per side of a picture with landmarks
CHAINS = ((0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (0, 17, 18, 19, 20), (5, 9, 13, 17))
FOUND, WANTED = (255, 196, 0), (0, 220, 255)  # colours of MediaPipe's landmarks and of the label's joints


def draw_samples(
    offers: Offers,
    weights: str,
    scene: Scene,
    text: str,
    count: int,
    settings: Settings,
    *,
    strength: float = 1.0,
    with_tas: bool = False,
) -> list[Image.Image]:
    """Pictures of a mesh image and a text, from different noise, as `attentionhand.inference` draws them.

    Args:
        weights: a name of what the owner offers, or `BY_TEXT_ALONE`.
        count: of pictures.
        strength: of the control; 1 is as trained.
        with_tas: the text attention stage before each step.

    Raises:
        UserError: weights that are not offered or unusable, no text, or one that is too long.
    """
    text = checked_text(text)
    base = offers.base, offers.original_config, offers.config
    with part("AttentionHand"):
        if weights == BY_TEXT_ALONE:
            pipe, control = uncontrolled(base, offers.mixed_precision)
        else:
            path = offered(offers.weights, weights, "the weights")
            pipe, control = controlled(base, path, offers.mixed_precision)
        if with_tas and not layers_at(pipe.unet, level=2):
            raise UserError("this model has no cross-attention at a quarter of the latents' side, so no text attention")
        mesh = control_image(scene.mesh, offers.resolution or own_resolution(pipe))
        shape = (count, *shape_of(pipe, offers.resolution)[1:])
        with progress(total=settings.num_inference_steps, desc="Drawing", unit="step") as bar:
            return draw_batch(
                pipe,
                control,
                [f"{text}, "] * count,  # with the comma, as the script has it
                encode_texts(pipe, [""], device(), desc=None),
                np.stack([mesh] * count),
                list(start_noise(settings.seed, shape)),
                device(),
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                strength=strength,
                mixed_precision=offers.mixed_precision,
                tas_steps=TAS_STEPS if with_tas else 0,
                after_step=bar.update,
            )


def with_landmarks(picture: Image.Image, scene: Scene) -> tuple[Image.Image, str]:
    """A picture, enlarged, with MediaPipe's landmarks and the label's joints over it, and what to say of them."""
    found = find_all(picture).hands
    shown = picture.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(shown)
    for label in scene.hands:
        skeleton(pen, label.joints_2d / scene.mesh.shape[0] * SHOWN, WANTED, 1)
    for hand in found:
        skeleton(pen, hand.landmarks[:, :2] * SHOWN, FOUND, 2)
    return shown, said_of(found, scene)


def skeleton(pen: ImageDraw.ImageDraw, points: np.ndarray, colour: tuple[int, int, int], width: int) -> None:
    """Draw 21 points (21, 2), in pixels, and the bones between them."""
    places = [(float(x), float(y)) for x, y in points]
    for chain in CHAINS:
        pen.line([places[joint] for joint in chain], fill=colour, width=width)
    for x, y in places:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=colour)


def said_of(found: Sequence[Hand], scene: Scene) -> str:
    """How many hands MediaPipe finds, and the mean error of their landmarks, in percent of the hand's size."""
    if not found:
        return "no hand found"
    if not scene.hands:
        return f"{counted(len(found), 'hand')} found"
    height, width = scene.mesh.shape[:2]
    errors = hand_errors(found, scene.hands, np.array([width, height]))
    return ", ".join(said_of_hand(label, error.joints_2d) for label, error in zip(scene.hands, errors))


def said_of_hand(label: LabelledHand, errors: np.ndarray) -> str:
    side = f"{label.handedness.lower()} hand" if label.handedness else "hand"
    return f"{side} not found" if np.isnan(errors).any() else f"{side}: error {errors.mean():.0%} of its size"
