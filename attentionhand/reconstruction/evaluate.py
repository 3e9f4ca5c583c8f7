"""How good are reconstructed hands? Errors of a trained network on labelled pictures, with 95 % intervals.

MPJPE and PA-MPJPE (in mm, or in palm lengths where the labels have no other unit), AUC of PCK, MRRPE where there are
two hands, and the share of pictures whose hands are rightly told right from left; for all pictures and for each gesture
or sequence. Definitions: attentionhand/reconstruction/metrics.py. As in InterWild, each hand is compared with the
output for its true side. Intervals draw whole labels anew.

Examples:
  python -m attentionhand.reconstruction.evaluate --weights output/lab --data wild
  python -m attentionhand.reconstruction.evaluate --weights output/lab --data wild --json wild.json --sheet wild.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python attentionhand/reconstruction/evaluate.py`

from core.metrics.intervals import bootstrap_interval
from core.metrics.options import resamples
from core.metrics.scores import NO_SCORE, Score
from core.runs.command_line import argument_parser, command_line, natural_int, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import check_outputs, write_json
from core.runs.processes import is_main_process, progress, say, start_processes, workers_a_process

if TYPE_CHECKING:
    from attentionhand.reconstruction.data import HandSet
    from attentionhand.reconstruction.training import Trained

# torch is imported inside functions: --help and a wrong path answer at once.

ALL = "all"  # the group of everything
SHEET_PICTURES = 12
LOWER_IS_BETTER = {"MPJPE": True, "PA-MPJPE": True, "AUC": False, "MRRPE": True, "handedness": False}


class Predictions(NamedTuple):
    """What a network says of a set, in the set's unit; right hand first."""

    joints: np.ndarray  # (N, 2, 21, 3) each hand from its own wrist
    left_wrist: np.ndarray  # (N, 3) left minus right wrist
    presence: np.ndarray  # (N, 2) logits


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--weights", type=Path, required=True, help="run folder of attentionhand.reconstruction.train")
    add("--data", type=Path, required=True, help="folder of labelled pictures")
    add("--batch_size", type=positive_int, default=64, help="pictures at a time; does not change the result")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add("--seed", type=seed_int, default=0, help="seed of the resamples")
    add("--num_workers", type=natural_int, help="processes that read pictures (default: one a core)")
    add("--json", type=Path, help="also write the result to this file")
    add("--sheet", type=Path, help="also write 12 pictures with predicted and true skeletons to this PNG file")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_outputs(args.json, args.sheet)

    from attentionhand.reconstruction.data import check_photos, read_hands
    from attentionhand.reconstruction.training import load_trained

    hands, trained = read_hands(args.data), load_trained(args.weights)
    if hands.unit != trained.unit:
        raise UserError(
            f"{args.data}: labels in {hands.unit}, but {args.weights} was trained on labels in {trained.unit}; "
            "train and test in one unit"
        )
    check_photos([hands])
    num_workers = workers_a_process(args.num_workers)
    predictions = predict(trained, hands, batch_size=args.batch_size, num_workers=num_workers)
    if not is_main_process():
        return
    scores = scores_of(hands, predictions, bootstrap=args.bootstrap, seed=args.seed)
    for group, metrics in scores.items():
        say(f"{group}: " + ", ".join(score_text(metric, score, hands.unit) for metric, score in metrics.items()))
    if args.json:
        plain = {group: {name: none_for_nan(score) for name, score in of.items()} for group, of in scores.items()}
        facts = {"data": str(args.data), "weights": str(args.weights), "weights_sha256": trained.fingerprint}
        write_json(args.json, {"pictures": len(hands.photos), "unit": hands.unit, **facts, "scores": plain})
    if args.sheet:
        from attentionhand.reconstruction.drawing import skeleton_sheet
        from core.runs.sheets import save_png

        save_png(skeleton_sheet(hands, predictions.joints, SHEET_PICTURES), args.sheet)


def predict(trained: "Trained", hands: "HandSet", *, batch_size: int, num_workers: int) -> Predictions:
    """The network's hands for every picture; each process takes its share, and all get everything."""
    import torch
    from accelerate.utils import gather_object

    from attentionhand.reconstruction.data import SCALE, TestTargets

    processes = start_processes()
    network = trained.network.to(processes.device)
    own = list(range(processes.process_index, len(hands.photos), processes.num_processes))
    targets = TestTargets(hands, own, trained.image_size)
    loader = torch.utils.data.DataLoader(targets, batch_size=batch_size, num_workers=num_workers if own else 0)
    parts = []
    with torch.inference_mode():
        for target in progress(loader, desc="Reconstructing", unit="batch"):
            found = network(target.picture.to(processes.device))
            parts.append([tensor.cpu().numpy() for tensor in found])
    arrays = [np.concatenate(part) for part in zip(*parts)]
    rows = gather_object([(row, *(array[place] for array in arrays)) for place, row in enumerate(own)])
    joints, left_wrist, presence = (np.stack(part) for part in list(zip(*sorted(rows, key=lambda row: row[0])))[1:])
    scale = SCALE[hands.unit]
    return Predictions(scale * (joints - joints[:, :, :1]), scale * left_wrist, presence)


def scores_of(hands: "HandSet", predictions: Predictions, *, bootstrap: int, seed: int) -> dict[str, dict[str, Score]]:
    """Every metric of all pictures and of each group, by group and metric."""
    values = values_of(hands, predictions)
    groups = [ALL, *sorted(set(hands.groups) - {""})]
    numbers = np.unique(hands.labels, return_inverse=True)[1]
    scores: dict[str, dict[str, Score]] = {}
    for group in groups:
        rows = np.ones(len(numbers), bool) if group == ALL else hands.groups == group
        scores[group] = {
            metric: score_of(of[rows], numbers[rows], bootstrap=bootstrap, seed=seed) for metric, of in values.items()
        }
    return scores


def values_of(hands: "HandSet", predictions: Predictions) -> dict[str, np.ndarray]:
    """Every metric for each hand (N, 2) or picture (N,), NaN where it does not apply."""
    from attentionhand.reconstruction.data import SCALE
    from attentionhand.reconstruction.metrics import AUC_SHARE, auc_of_pck, joint_errors, mpjpe, mrrpe, pa_mpjpe

    count, scale = len(hands.photos), SCALE[hands.unit]
    ours, theirs = predictions.joints.reshape(-1, 21, 3), hands.joints_3d.reshape(-1, 21, 3)
    per_hand = {
        "MPJPE": mpjpe(ours, theirs),
        "PA-MPJPE": pa_mpjpe(ours, theirs),
        "AUC": auc_of_pck(joint_errors(ours, theirs), AUC_SHARE * scale),
    }
    told = ((predictions.presence > 0) == hands.has_hand).all(axis=1)
    return {
        **{metric: of.reshape(count, 2) for metric, of in per_hand.items()},
        "MRRPE": mrrpe(predictions.left_wrist, hands.left_wrist),
        "handedness": told.astype(float),
    }


def score_of(values: np.ndarray, labels: np.ndarray, *, bootstrap: int, seed: int) -> Score:
    """The mean of values (N,) or (N, 2) of pictures, and its interval over their labels (N,)."""
    if values.ndim == 2:
        labels = np.repeat(labels, values.shape[1])
    known = ~np.isnan(values.ravel())
    if not known.any():
        return NO_SCORE
    measured, of = values.ravel()[known].astype(float), labels.ravel()[known]
    return Score(float(measured.mean()), *bootstrap_interval(measured, of, resamples=bootstrap, seed=seed))


def score_text(metric: str, score: Score, unit: str) -> str:
    """ "MPJPE 14.2 mm [13.1, 15.3]", or "MRRPE – " where there is nothing to measure."""
    if np.isnan(score.value):
        return f"{metric} –"
    digits = 2 if unit == "mm" and metric not in ("AUC", "handedness") else 4
    name = f" {unit}" if metric not in ("AUC", "handedness") else ""
    return f"{metric} {score.value:.{digits}f}{name} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def none_for_nan(score: Sequence[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if np.isnan(number) else float(number) for number in score]


if __name__ == "__main__":
    main()
