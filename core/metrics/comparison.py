"""What cal_fid.py and cal_kid.py share: the features of both sides, what is said about them, and the result's file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.runs.errors import UserError
from core.runs.files import check_outputs, write_json
from core.runs.processes import counted, is_main_process, say, workers_a_process

if TYPE_CHECKING:
    from core.metrics.saved_features import Features


def features_to_compare(
    real: Path,
    fake: Path,
    *,
    save_features: Sequence[Path] | None,
    json: Path | None,
    hands: bool,
    num_workers: int | None,
    **options: Any,
) -> tuple["Features", "Features"]:
    """The features of the real and the generated pictures; says what they are, and saves them where wanted.

    Args:
        save_features: one or two `.npz` files, for the real and the generated pictures.
        json: where the caller will write the result; checked here, before the work.
        num_workers: processes that read pictures (default: this process's share of the cores).
        options: further ones of `core.metrics.features.features_of_both`.

    Raises:
        UserError: as `features_of_both`, and for outputs that can't be written or are inputs.
    """
    save_to = save_features or []
    if len(save_to) > 2 or any(path.suffix != ".npz" for path in save_to):
        raise UserError("--save_features takes one or two .npz files: for the real and for the generated pictures")
    inputs = [real, fake, options["feature_extractor"], options["inception_weights"]]
    check_outputs(*save_to, json, inputs=inputs)

    from core.metrics.features import features_of_both
    from core.metrics.saved_features import save_features as save

    sides = features_of_both(real, fake, hands=hands, num_workers=workers_a_process(num_workers), **options)
    say(f"Protocol: {sides[0].protocol}, {sides[0].extractor}, {sides[0].features.shape[1]} features")
    for name, side in zip(("Real", "Fake"), sides):
        crops = ""
        if hands:
            crops = f", {side.without_hand} without a hand, {counted(len(side.features), 'hand crop')}"
        say(f"{name}: {side.source}: {counted(side.images, 'image')}{crops}")
    if is_main_process():
        for path, side in zip(save_to, sides):
            save(path, side)
    return sides


def write_comparison(path: Path, result: dict[str, Any], real: "Features", fake: "Features", **settings: Any) -> None:
    """Write a result as JSON, with the protocol, the extractor, the counts of both sides and `settings`."""
    made = {"protocol": real.protocol, "extractor": real.extractor, "crop": real.crop}
    sides = {
        name: {
            "source": side.source,
            "images": side.images,
            "without_hand": side.without_hand,
            "pictures": len(side.features),
        }
        for name, side in (("real", real), ("fake", fake))
    }
    write_json(path, {**result, **made, **settings, **sides})
