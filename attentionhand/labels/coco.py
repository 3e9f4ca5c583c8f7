"""MSCOCO as AttentionHand was trained on: COCO-WholeBody's hands (Jin et al. 2020), NeuralAnnot's MANO fits.

annotations/coco_wholebody_train_v1.0.json has for each person {left,right}hand_box (x, y, w, h), _kpts 21 x (x, y, v)
and _valid; MSCOCO_train_MANO_NeuralAnnot.json by annotation id each hand's mano_param {pose, shape, trans} and
cam_param {focal, princpt} in pixels of the whole picture (data/MSCOCO/MSCOCO.py of github.com/facebookresearch/
InterWild). The hands of all people of a picture make one label. Only the training pictures have MANO fits.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attentionhand.labels.camera import pinhole
from attentionhand.labels.interhand import world_mano
from attentionhand.labels.json_stream import stream_list, stream_object
from attentionhand.labels.label import SIDES, HandLabel, Label
from core.hands.crops import Box, union_box

IDENTITY, NOWHERE = np.eye(3), np.zeros(3)


def read(root: Path, split: str) -> Iterator[Label]:
    """The pictures with at least one valid hand, in the order of their ids."""
    folder = root / "annotations"
    annotations = folder / f"coco_wholebody_{split}_v1.0.json"
    people: dict[int, list] = defaultdict(list)
    for person in stream_list(annotations, "annotations"):
        hands = [(side, *valid_hand(person, side)) for side in SIDES if person.get(f"{side}hand_valid")]
        if hands and not person.get("iscrowd"):
            people[person["image_id"]].append((str(person["id"]), hands))
    wanted = {name for group in people.values() for name, _ in group}
    fits_file = folder / f"MSCOCO_{split}_MANO_NeuralAnnot.json"
    fits = {name: fit for name, fit in stream_object(fits_file) if name in wanted and fit}
    pictures = sorted(stream_list(annotations, "images"), key=lambda picture: picture["id"])
    for picture in pictures:
        found, boxes = [], []
        for name, hands in people.get(picture["id"], []):
            for side, joints, box in hands:
                fit = (fits.get(name) or {}).get(side)
                if fit:
                    found.append(fitted_hand(SIDES[side], joints, fit, f"{fits_file}: {name}"))
                    boxes.append(box)
        if people.get(picture["id"]):
            camera = found[0].camera if found else None
            rgb = find_picture(root, f"{split}2017", picture["file_name"])
            size = int(picture["width"]), int(picture["height"])
            box = union_box(boxes) if boxes else None
            middle = pinhole((max(size),) * 2, (size[0] / 2, size[1] / 2), str(annotations))
            yield Label(Path(picture["file_name"]).stem, rgb, camera or middle, tuple(found), size, box)


def find_picture(root: Path, folder: str, name: str) -> Path:
    """In images/train2017 as InterWild has it, or in train2017 as COCO is unpacked."""
    places = [root / "images" / folder / name, root / folder / name]
    return next((place for place in places if place.is_file()), places[0])


def valid_hand(person: dict, side: str) -> tuple[np.ndarray, Box]:
    """A hand's joints (21, 2), NaN where not labelled, and its box."""
    points = np.array(person[f"{side}hand_kpts"], dtype=float).reshape(21, 3)
    left, top, width, height = person[f"{side}hand_box"]
    return np.where(points[:, 2:] > 0, points[:, :2], np.nan), (
        int(left),
        int(top),
        int(left + width) + 1,
        int(top + height) + 1,
    )


def fitted_hand(handedness: str, joints: np.ndarray, fit: dict, where: str) -> HandLabel:
    camera = pinhole(fit["cam_param"]["focal"], fit["cam_param"]["princpt"], where)
    return HandLabel(handedness, joints_2d=joints, mano=world_mano(fit["mano_param"], IDENTITY, NOWHERE), camera=camera)
