"""Hands in pictures, boxes and crops around them."""

import numpy as np
from PIL import Image

from core.hands.crops import hand_box, hand_crops, union_box
from core.hands.detection import Hand, find_hands, find_hands_at
from synthetic_hands.drawn import draw_open_hand


def test_landmarks_are_where_the_hand_is():
    """That they are MediaPipe's, tests/test_detection.py holds."""
    image, _ = draw_open_hand(np.random.default_rng(1))
    (hand,) = find_hands(image)
    assert hand.landmarks.shape == (21, 3) and hand.handedness in ("Left", "Right") and 0.5 <= hand.score <= 1
    assert hand.landmarks[12, 1] < hand.landmarks[0, 1] - 0.25  # the middle finger's tip is above the wrist
    (mirrored,) = find_hands(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert np.abs(mirrored.landmarks[:, 0] - (1 - hand.landmarks[:, 0])).max() < 0.03


def test_hands_at_several_confidences_are_those_at_each():
    image, _ = draw_open_hand(np.random.default_rng(2))
    found = find_hands_at(image, (0.0, 0.5), max_num_hands=2)
    for hands, confidence in zip(found, (0.0, 0.5), strict=True):
        alone = find_hands(image, max_num_hands=2, min_detection_confidence=confidence)
        for hand, expected in zip(hands, alone, strict=True):
            assert (hand.landmarks == expected.landmarks).all() and hand[1:] == expected[1:]


def test_boxes_and_crops():
    landmarks = np.zeros((21, 3))
    landmarks[:, 0], landmarks[:, 1] = np.linspace(0.25, 0.5, 21), np.linspace(0.5, 1.2, 21)
    hand = Hand(landmarks, "Left", 0.9)
    assert hand_box(hand, (200, 100)) == (50, 50, 100, 100)  # cut off at the lower edge
    assert hand_box(Hand(landmarks + 2, "Left", 0.9), (200, 100)) is None
    assert union_box([(50, 50, 100, 100), (10, 60, 70, 80)]) == (10, 50, 100, 100)
    image, other = Image.new("RGB", (200, 100)), Hand(landmarks * 0.5, "Right", 0.8)
    assert [crop.size for crop in hand_crops(image, [hand, other])] == [(75, 75)]
    assert [crop.size for crop in hand_crops(image, [hand, other], union=False)] == [(50, 50), (25, 35)]
    assert hand_crops(image, []) == []
