"""FreiHAND (Zimmermann et al. 2019): one right hand a picture, 32,560 labels, each with up to four backgrounds.

{split}_K.json, _xyz.json and _verts.json are lists: camera matrix (3, 3), 21 joints and 778 vertices in metres, in the
camera's frame, joints in MediaPipe's order. The picture of label i with background v is {split}/rgb/%08d.jpg of
i + 32560 v (utils/fh_utils.py of github.com/lmb-freiburg/freihand). Its triangles are MANO's and not in the set.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from attentionhand.labels.camera import camera_of
from attentionhand.labels.json_stream import stream_list
from attentionhand.labels.label import RIGHT, HandLabel, Label
from core.runs.errors import UserError

SIDE = 224  # pixels of every picture
BACKGROUNDS = 4  # green screen, and three ways of replacing it


def read(root: Path, split: str) -> Iterator[Label]:
    """All labels with the first background, then all of them with the next one that is there."""
    folder = root / split / "rgb"
    files = [root / f"{split}_{name}.json" for name in ("K", "xyz", "verts")]
    shift = sum(1 for _ in stream_list(files[0]))
    for background in range(BACKGROUNDS if split == "training" else 1):
        if background and not (folder / f"{background * shift:08}.jpg").is_file():
            return
        streams = [stream_list(path) for path in files]
        number = background * shift
        for matrix, joints, vertices in zip(*streams):
            hand = HandLabel(RIGHT, np.array(joints, dtype=float), vertices=np.array(vertices, dtype=float))
            camera = camera_of(matrix, f"{files[0]}: entry {number % shift}")
            yield Label(f"{split}_{number:08}", folder / f"{number:08}.jpg", camera, (hand,), (SIDE, SIDE))
            number += 1
        if number != (background + 1) * shift:
            raise UserError(f"{files[1]}: {number % shift} entries, but {files[0]} has {shift}")
