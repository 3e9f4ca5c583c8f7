"""Do FID-H and KID-H tell hand signs apart? Each sign of a photo collection against itself and against the next sign.

Each sign's photos are cut into two halves; "self" compares them, "next" the first half with that of the next sign. The
features are gradient histograms (synthetic_hands/feature_extractor.py), so nothing is downloaded. Made for the Sign
Language Digits Dataset (Mavi 2020), one folder for each sign.

Example:
  python -m benchmarks.real_hands --image_folder sign-language-digits
"""

import tempfile
from pathlib import Path
from typing import Any

from core.metrics import fid, kid
from core.metrics.equations import hand_confidence
from core.metrics.hands import hands_of_photos
from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.photos import list_photos
from core.runs.processes import cpu_count


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of one folder for each sign")
    args = parser.parse_args(argv)
    if not args.image_folder.is_dir():
        raise UserError(f"{args.image_folder}: no such folder")
    signs = sorted(path for path in args.image_folder.iterdir() if path.is_dir())
    if len(signs) < 2:
        raise UserError(f"{args.image_folder}: needs a folder for each of at least 2 signs")
    photos = {sign: list_photos(sign) for sign in signs}

    import torch

    from core.metrics.extractors import load_torchscript
    from core.metrics.features import extract
    from synthetic_hands.feature_extractor import save_feature_extractor

    halves, confidences = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        extractor = load_torchscript(save_feature_extractor(Path(folder) / "hog.pt"), torch.device("cpu"))
    options: dict[str, Any] = {"protocol": "released", "crop": "union", "batch_size": 32, "num_workers": cpu_count()}
    for sign in signs:
        halves[sign] = [extract(photos[sign][half::2], extractor, **options)[0] for half in (0, 1)]
        found = hands_of_photos(photos[sign])
        confidences[sign] = (*hand_confidence([photo.scores for photo in found]), sum(p.found > 0 for p in found))

    print("| sign | FID-H self | FID-H next | KID-H self | KID-H next | HAND-CONF | photos with a hand |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for sign, following in zip(signs, signs[1:] + signs[:1]):
        figures = [
            metric(halves[sign][0], other)
            for metric in (fid, lambda real, fake: kid(real, fake, protocol="standard")[0])
            for other in (halves[sign][1], halves[following][0])
        ]
        mean, error, with_hand = confidences[sign]
        numbers = " | ".join(f"{figure:.2f}" for figure in figures)
        share = with_hand / len(photos[sign])
        print(f"| {sign.name} | {numbers} | {mean:.4f} ± {error:.4f} | {share:.0%} of {len(photos[sign])} |")


if __name__ == "__main__":
    main()
