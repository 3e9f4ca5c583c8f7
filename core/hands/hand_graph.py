"""MediaPipe's hands in numpy: the rules of 0.10.21's legacy graph, its two networks run by LiteRT.

The graph is `hand_landmark_tracking_cpu` in static image mode, as `mediapipe.solutions.hands` runs it. It finds palms
in the whole picture, turns each into a region around the hand with the fingers up, and finds landmarks in each region.
Each function names the calculators (MediaPipe's nodes) whose rules it follows.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from core.hands.hand import Hand
from core.hands.litert import Model
from core.hands.regions import Region, cut_out

PALM_SIZE, LANDMARK_SIZE = 192, 224  # pixels per side of what each network sees
LOW, HIGH, WRIST, MIDDLE_KNUCKLE = range(4)  # a palm's points: two corners of its box, two of its seven key points
MAX_PALM_OVERLAP, MAX_REGION_OVERLAP = 0.3, 0.5  # intersection over union above which two are the same hand
REGION_SCALE, REGION_SHIFT = 2.6, 0.5  # region's side in palm sizes; how far it moves to the fingers, in palm heights
MIN_PRESENCE = 0.5  # below it, a region holds no hand; MediaPipe's min_tracking_confidence, which nobody sets
DEPTH_SCALE = 0.4  # the network's depth is so much smaller than its x and y


class Palms(NamedTuple):
    """What the palm network sees: one candidate for each of its anchors."""

    points: np.ndarray  # (N, 4, 2) float64: LOW, HIGH, WRIST, MIDDLE_KNUCKLE in pixels of the picture
    scores: np.ndarray  # (N,) float32, 0 to 1


def find_hands_at(picture: Image.Image, confidences: Sequence[float], max_num_hands: int) -> list[list[Hand]]:
    """The hands in an RGB picture at each detection confidence.

    The palm network runs once, the landmark network once for each region.
    """
    image = np.asarray(picture)
    palms = find_palms(image)
    landmarks = functools.cache(functools.partial(find_hand, image))
    found = []
    for confidence in confidences:
        hands = [landmarks(region) for region in hand_regions(palms, confidence, max_num_hands)]
        found.append([hand for hand in hands if hand])
    return found


@functools.cache
def _model(name: str) -> Model:
    return Model(name)


def find_palms(image: np.ndarray) -> Palms:
    """All candidates for palms in an image (height, width, 3) uint8.

    ImageToTensorCalculator (the picture centred in a black square), InferenceCalculator, TensorsToDetectionsCalculator,
    DetectionLetterboxRemovalCalculator.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    whole = Region(width / 2, height / 2, side, 0.0)
    raw, logits = _model("palm_detection_full.tflite")(cut_out(image, whole, PALM_SIZE, black_outside=True))
    raw = raw.reshape(-1, 9, 2).astype(float) / PALM_SIZE  # centre and size of the box, then 7 key points
    centre, size, wrist, knuckle = raw[:, 0], raw[:, 1], raw[:, 2], raw[:, 4]
    points = np.stack([centre - size / 2, centre + size / 2, wrist, knuckle], axis=1) + anchors()[:, None]
    scores = 1 / (1 + np.exp(-logits[:, 0].astype(float).clip(-100, 100)))
    valid = (size >= 0).all(axis=1)
    return Palms(whole.to_picture(points[valid]), scores[valid].astype(np.float32))


@functools.cache
def anchors() -> np.ndarray:
    """The places that the palm network looks at, relative to its square, (2016, 2) from 0 to 1. SsdAnchorsCalculator.

    2 for each cell of a grid of 24 x 24 cells, 6 for each of 12 x 12.
    """
    grids = []
    for cells, repeats in ((PALM_SIZE // 8, 2), (PALM_SIZE // 16, 6)):
        rows, columns = np.divmod(np.arange(cells**2), cells)
        grids.append(np.repeat((np.stack([columns, rows], axis=1) + 0.5) / cells, repeats, axis=0))
    return np.concatenate(grids)


def hand_regions(palms: Palms, confidence: float, max_num_hands: int) -> list[Region]:
    """The regions of the surest hands, in MediaPipe's order.

    ClipDetectionVectorSizeCalculator, AssociationNormRectCalculator: of two regions that overlap, only the one of the
    less sure palm stays.
    """
    regions: list[Region] = []
    for palm in merged_palms(palms, confidence, max_num_hands):
        region = hand_region(palm)
        box = _upright_box(region)
        regions = [other for other in regions if overlap(box, _upright_box(other)[None]) <= MAX_REGION_OVERLAP]
        regions.append(region)
    return regions


def merged_palms(palms: Palms, confidence: float, count: int) -> list[np.ndarray]:
    """The `count` surest palms, each (4, 2): the mean of candidates that overlap, weighted by their scores.

    NonMaxSuppressionCalculator, its weighted algorithm.
    """
    sure = palms.scores >= np.float32(confidence)
    order = np.argsort(-palms.scores[sure], kind="stable")
    points, scores = palms.points[sure][order], palms.scores[sure][order]
    merged: list[np.ndarray] = []
    while len(scores) and len(merged) < count:
        same = overlap(points[0, : HIGH + 1], points[:, : HIGH + 1]) > MAX_PALM_OVERLAP
        if not same.any():  # a box without area does not even overlap itself; the calculator stops there
            merged.append(points[0])
            break
        merged.append(np.average(points[same], axis=0, weights=scores[same]))
        points, scores = points[~same], scores[~same]
    return merged


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (2, 2: low and high corner) with each of (N, 2, 2); 0 where there is no area."""
    sides = np.minimum(box[HIGH], boxes[:, HIGH]) - np.maximum(box[LOW], boxes[:, LOW])
    intersection = sides.clip(0).prod(axis=-1)
    union = (box[HIGH] - box[LOW]).prod() + (boxes[:, HIGH] - boxes[:, LOW]).prod(axis=-1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def hand_region(palm: np.ndarray) -> Region:
    """The square around a hand whose palm is (4, 2), turned so that the fingers point up.

    DetectionsToRectsCalculator, RectTransformationCalculator.
    """
    width, height = palm[HIGH] - palm[LOW]
    x_center, y_center = (palm[LOW] + palm[HIGH]) / 2
    right, down = palm[MIDDLE_KNUCKLE] - palm[WRIST]
    rotation = math.remainder(math.pi / 2 - math.atan2(-down, right), 2 * math.pi)
    shift = REGION_SHIFT * height
    return Region(
        x_center=x_center + shift * math.sin(rotation),
        y_center=y_center - shift * math.cos(rotation),
        side=REGION_SCALE * max(width, height),
        rotation=rotation,
    )


def _upright_box(region: Region) -> np.ndarray:
    """Two corners of the region as if it were not turned: so the graph compares regions."""
    centre, half = np.array([region.x_center, region.y_center]), region.side / 2
    return np.array([centre - half, centre + half])


def find_hand(image: np.ndarray, region: Region) -> Hand | None:
    """The hand in a region, if one is there.

    ImageToTensorCalculator, InferenceCalculator, ThresholdingCalculator, TensorsToClassificationCalculator,
    TensorsToLandmarksCalculator, LandmarkProjectionCalculator.
    """
    if region.side <= 0:
        return None
    height, width = image.shape[:2]
    seen = cut_out(image, region, LANDMARK_SIZE, black_outside=False)
    landmarks, presence, left, _ = _model("hand_landmark_full.tflite")(seen)  # the last: landmarks in metres
    if presence[0] <= MIN_PRESENCE:
        return None
    landmarks = landmarks.reshape(21, 3).astype(float) / LANDMARK_SIZE
    x, y = (region.to_picture(landmarks[:, :2]) / (width, height)).T
    depth = landmarks[:, 2] / DEPTH_SCALE * region.side / width
    probability = float(left[0])
    handedness = "Left" if probability >= 0.5 else "Right"
    return Hand(np.stack([x, y, depth], axis=1), handedness, max(probability, 1 - probability))
