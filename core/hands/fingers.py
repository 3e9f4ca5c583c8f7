"""Which fingers a hand shows, and whether they are those of a gesture: the project's gesture accuracy."""

from collections.abc import Sequence

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


def extended_fingers(landmarks: np.ndarray) -> list[str]:
    """The extended fingers of a hand, from its landmarks (21, 3) in MediaPipe's order and of any scale.

    A finger is extended if its tip is farther from the wrist than its middle joint by `REACH`; the thumb if its tip is
    farther from the little finger's knuckle than its own knuckle is. Independent of the hand's direction and side.
    """

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(landmarks[a] - landmarks[b]))

    extended = [distance(THUMB_TIP, PINKY_KNUCKLE) > REACH * distance(THUMB_KNUCKLE, PINKY_KNUCKLE)]
    extended += [distance(tip, WRIST) > REACH * distance(joint, WRIST) for tip, joint in zip(TIPS, MIDDLE_JOINTS)]
    return [finger for finger, is_extended in zip(FINGERS, extended) if is_extended]


def shows_gesture(hands: Sequence[Hand], gesture: str, image_size: tuple[int, int]) -> bool:
    """Whether one of the hands extends exactly the fingers of the gesture; never where there is no hand.

    Gestures with the same fingers (like and dislike, peace and two_up) are not told apart.

    Args:
        image_size: (width, height) of the picture, which the landmarks are relative to.

    Raises:
        KeyError: not one of `GESTURE_FINGERS`.
    """
    wanted, ignored = set(GESTURE_FINGERS[gesture].split()), {"thumb"} if gesture in ANY_THUMB else set()
    width, height = image_size
    in_pixels = [
        hand.landmarks * (width, height, width) for hand in hands
    ]  # MediaPipe's depth is relative to the width
    return any(set(extended_fingers(landmarks)) - ignored == wanted - ignored for landmarks in in_pixels)
