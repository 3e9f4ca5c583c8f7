"""A feature extractor for FID and KID without a download: histograms of oriented gradients (Dalal and Triggs 2005).

It sees the shape of a hand, not its colour. Good for tests, demos and the first look at one's own pictures; published
tables need Inception.

Example:
  python -m synthetic_hands.feature_extractor --output hog.pt
  python cal_fid.py --real_images A --fake_images B --hands --feature_extractor hog.pt
"""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from core.runs.command_line import argument_parser, command_line
from core.runs.files import atomic_file
from core.runs.processes import say

SIZE, CELLS, ORIENTATIONS = 64, 4, 9  # pixels, cells a side, directions over half a turn


class OrientedGradients(nn.Module):
    """uint8 (N, 3, H, W) of any size -> float32 (N, 144): gradient orientations in 4x4 cells, mean square 1."""

    __constants__ = ("size", "cells", "orientations")  # TorchScript sees no module-level ones

    def __init__(self) -> None:
        super().__init__()
        self.size, self.cells, self.orientations = SIZE, CELLS, ORIENTATIONS

    def forward(self, pictures: Tensor) -> Tensor:
        grey = pictures.float().mean(dim=1, keepdim=True) / 255
        grey = nn.functional.interpolate(grey, size=[self.size, self.size], mode="bilinear", antialias=True)
        grey = nn.functional.pad(grey, [1, 1, 1, 1], mode="replicate")
        dx = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
        dy = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
        # Each pixel's gradient is shared between the two nearest orientations.
        turn = float(self.orientations)
        place = torch.atan2(dy, dx) / math.pi * turn  # -9 to 9; the same direction again after 9
        centres = torch.arange(self.orientations, device=grey.device).view(1, -1, 1, 1)
        distance = torch.remainder(place - centres + turn / 2, turn) - turn / 2
        votes = (1 - distance.abs()).clamp(min=0) * torch.sqrt(dx**2 + dy**2)  # (N, 9, 64, 64)
        features = nn.functional.adaptive_avg_pool2d(votes, [self.cells, self.cells]).flatten(1)
        return features / (features**2).mean(dim=1, keepdim=True).clamp(min=1e-12).sqrt()


def save_feature_extractor(path: Path) -> Path:
    """Write the extractor as TorchScript, for `--feature_extractor`."""
    with atomic_file(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, yet the one format that opens without its class
        torch.jit.script(OrientedGradients()).save(str(temporary))
    return path


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("hog.pt"), help="file to write")
    args = parser.parse_args(argv)
    save_feature_extractor(args.output)
    say(f"{args.output}: {CELLS * CELLS * ORIENTATIONS} features")


if __name__ == "__main__":
    main()
