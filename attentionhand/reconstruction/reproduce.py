"""The paper's claim as a table: does a network for 3D hands get better in the wild with generated pictures?

Rows: trained on the lab alone; with wild pictures of other poses; with pictures that a generator drew for the lab's
labels (the base model, ControlNet, AttentionHand without and with its text attention stage); and, as the upper bound,
with real wild pictures of the lab's labels. The generators learn from the wild pictures of other poses. A killed run
resumes when started again. Writes table.md, table.csv, table.tex, results.json, grid.png and report.html, the published
table beside ours. --dry_run prints the plan.

Examples:
  python -m attentionhand.reconstruction.reproduce --lab lab --wild wild --test wild=test_wild --test lab=test_lab
  python -m attentionhand.reconstruction.reproduce --lab lab --wild wild --test wild=test_wild --seeds 0 1 2 --dry_run
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python attentionhand/reconstruction/reproduce.py`

from core.diffusion.hub_runs import refuse_push
from core.metrics.options import resamples
from core.runs.command_line import argument_parser, command_line, plain_arguments, positive_int, real_number, seed_int
from core.runs.errors import UserError
from core.runs.experiments import add_experiment_options, check_experiment, check_step_arguments, run_steps
from core.runs.files import check_writable
from core.runs.steps import print_plan

STAGES = ("prompts", "train_generator", "draw", "export", "train", "evaluate", "report")
LAUNCHED = {"train_generator", "draw", "train"}  # stages that can use several processes
PASSED_TO = {  # --train_args and the like
    "train": "attentionhand/train.py",
    "draw": "attentionhand/inference.py",
    "reconstruction": "attentionhand/reconstruction/train.py",
}
OWNED = {  # options of the scripts that the experiment sets by itself
    "train": (
        *("--data_dir", "--output_dir", "--no_tas", "--local_view", "--resolution"),
        "--pretrained_model_name_or_path",
    ),
    "draw": (
        *("--weights", "--sample_path", "--output_dir", "--num_samples", "--resolution"),
        "--pretrained_model_name_or_path",
    ),
    "reconstruction": ("--data", "--output_dir", "--seed", "--shares", "--max_train_steps", "--num_train_epochs"),
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--lab", type=Path, required=True, help="labelled pictures from the lab; generators draw their labels")
    add("--wild", type=Path, required=True, help="labelled pictures in the wild of other poses; generators learn them")
    add("--upper_bound", type=Path, help="real wild pictures of the lab's labels, where there are some")
    add("--test", type=named_folder, action="append", required=True, metavar="NAME=DIR", help="labelled test pictures")
    add("--output_dir", type=Path, default=Path("results/reconstruction"), help="folder for everything it makes")
    add("--texts", type=Path, help="new scenes for the lab's labels, one a line (default: the texts of --wild)")
    add(
        "--pretrained_model_name_or_path",
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        help="base model of the generators: hub id or diffusers folder",
    )
    add("--resolution", type=positive_int, default=512, help="pixels a side of generated and of the lab's pictures")
    add("--num_samples", type=positive_int, default=3, help="pictures that a generator draws of each label")
    add("--added_share", type=share, help="of the added pictures in a training (default: by the numbers of pictures)")
    add("--threshold", type=positive_float, default=10.0, help="highest landmark error of a picture, in hand sizes")
    add("--sweep", type=positive_float, nargs="+", default=[], help="further thresholds to compare, last generator")
    add("--steps", type=positive_int, default=20000, help="training steps of every network for reconstruction")
    add("--seeds", nargs="+", type=seed_int, default=[0, 1, 2], help="of the reconstruction networks; averaged")
    add("--generators", nargs="+", help="only these of base, controlnet, without_tas, with_tas (default: all)")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add_experiment_options(parser, stages=STAGES, scripts=PASSED_TO, launched=LAUNCHED)
    return parser.parse_args(argv)


def named_folder(text: str) -> tuple[str, Path]:
    """argparse type: NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not equals or not name.isidentifier() or not folder:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=DIR, such as wild=data/test_wild")
    return name, Path(folder)


def positive_float(text: str) -> float:
    """argparse type: a finite number above 0."""
    value = real_number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def share(text: str) -> float:
    """argparse type: a number between 0 and 1."""
    value = real_number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    further_args = {script: getattr(args, f"{script}_args") for script in OWNED}
    tests, thresholds = [name for name, _ in args.test], [*args.sweep, args.threshold]
    once = {"--seeds": args.seeds, "--test": tests, "--sweep": thresholds, "--generators": args.generators or []}
    check_experiment(further_args, OWNED, once, jobs=args.jobs, launcher=args.launcher)
    refuse_push("--train_args", args.train_args)

    from attentionhand.reconstruction.experiment import GENERATORS, Experiment

    unknown = sorted(set(args.generators or []) - set(GENERATORS))
    if unknown:
        raise UserError(f"--generators: there is no '{unknown[0]}', but {', '.join(GENERATORS)}")
    shared = "lab wild upper_bound output_dir texts resolution num_samples added_share".split()
    shared += "threshold sweep seeds bootstrap".split()
    experiment = Experiment(
        tests=dict(args.test),
        generators=args.generators or list(GENERATORS),
        base_model=args.pretrained_model_name_or_path,
        network_steps=args.steps,
        **{f"{script}_args": further for script, further in further_args.items()},
        **{name: getattr(args, name) for name in shared},
    )
    experiment.check()
    check_writable(args.output_dir)
    steps = experiment.steps()
    chosen = [step for step in steps if step.stage in args.stages]
    if args.dry_run:
        print_plan(experiment.records, chosen)
        return
    check_step_arguments(chosen, LAUNCHED)

    def report() -> None:
        from attentionhand.reconstruction.report import write_report

        write_report(experiment, plain_arguments(args))

    run_steps(experiment.records, steps, report, LAUNCHED, stages=args.stages, jobs=args.jobs, launcher=args.launcher)


if __name__ == "__main__":
    main()
