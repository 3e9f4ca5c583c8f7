"""Which fingers a hand extends, and whether they are those of a gesture: the project's gesture accuracy."""

from collections.abc import Collection, Sequence

import numpy as np

from core.hands.detection import Hand

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
TIPS, MIDDLE_JOINTS = (8, 12, 16, 20), (6, 10, 14, 18)  # MediaPipe's numbers, index to pinky
WRIST, THUMB_KNUCKLE, THUMB_TIP, PINKY_KNUCKLE = 0, 2, 4, 17
REACH = 1.2  # how much farther the tip of an extended finger lies than its middle joint

# Extended fingers of HaGRID's one-handed gestures. At "stop" the thumb may lie along the palm or beside it.
GESTURE_FINGERS = {
    "call": "thumb pinky",
    "dislike": "thumb",
    "fist": "",
    "four": "index middle ring pinky",
    "like": "thumb",
    "mute": "index",
    "ok": "middle ring pinky",
    "one": "index",
    "palm": "thumb index middle ring pinky",
    "peace": "index middle",
    "peace_inverted": "index middle",
    "rock": "index pinky",
    "stop": "index middle ring pinky",
    "stop_inverted": "index middle ring pinky",
    "three": "index middle ring",
    "three2": "thumb index middle",
    "two_up": "index middle",
    "two_up_inverted": "index middle",
    "little_finger": "pinky",
    "middle_finger": "middle",
    "three3": "middle ring pinky",
    "thumb_index": "thumb index",
}
ANY_THUMB = {"stop", "stop_inverted"}


def extended_fingers(landmarks: np.ndarray) -> frozenset[str]:
    """The extended fingers of a hand, from its landmarks (21, 3) in MediaPipe's order and of any scale.

    A finger is extended if its tip is farther from the wrist than its middle joint by `REACH`; the thumb if its tip is
    farther from the little finger's knuckle than its own knuckle is. Independent of the hand's direction and side.
    """

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(landmarks[a] - landmarks[b]))

    extended = [distance(THUMB_TIP, PINKY_KNUCKLE) > REACH * distance(THUMB_KNUCKLE, PINKY_KNUCKLE)]
    extended += [distance(tip, WRIST) > REACH * distance(joint, WRIST) for tip, joint in zip(TIPS, MIDDLE_JOINTS)]
    return frozenset(finger for finger, is_extended in zip(FINGERS, extended) if is_extended)


def fingers_of_gesture(gesture: str) -> list[frozenset[str]]:
    """The sets of extended fingers that count as a gesture of `GESTURE_FINGERS`: one, or two where the thumb is free.

    Gestures with the same fingers (like and dislike, peace and two_up) are not told apart.

    Raises:
        KeyError: the gesture is not one of `GESTURE_FINGERS`.
    """
    fingers = frozenset(GESTURE_FINGERS[gesture].split())
    return [fingers, fingers | {"thumb"}] if gesture in ANY_THUMB else [fingers]


def shows_fingers(hands: Sequence[Hand], accepted: Collection[frozenset[str]], image_size: tuple[int, int]) -> bool:
    """Whether one of the hands extends exactly the fingers of one of the accepted sets; never where there is no hand.

    Args:
        accepted: sets of `FINGERS`, for example [frozenset({"index", "middle"})].
        image_size: (width, height) of the picture, which the landmarks are relative to.
    """
    width, height = image_size
    for hand in hands:
        in_pixels = hand.landmarks * (width, height, width)  # MediaPipe's depth is relative to the width
        if extended_fingers(in_pixels) in accepted:
            return True
    return False
