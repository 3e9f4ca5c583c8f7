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
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `python attentionhand/reconstruction/reproduce.py`

from core.metrics.options import resamples
from core.runs.command_line import argument_parser, command_line, plain_arguments, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import check_writable, hold_lock
from core.runs.processes import num_processes, say
from core.runs.steps import print_plan, run_step, script_functions

OWNED = {  # options of the scripts that the experiment sets by itself
    "train": ("--data_dir", "--output_dir", "--no_tas", "--local_view", "--resolution"),
    "draw": ("--weights", "--sample_path", "--output_dir", "--num_samples", "--resolution"),
    "reconstruction": ("--data", "--output_dir", "--seed", "--shares"),
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
    add("--seeds", nargs="+", type=seed_int, default=[0, 1, 2], help="of the reconstruction networks; averaged")
    add("--generators", nargs="+", help="only these of base, controlnet, without_tas, with_tas (default: all)")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    for script in OWNED:
        add(f"--{script}_args", type=shlex.split, default=[], metavar="TEXT", help=f"further arguments: {script}")
    add("--launcher", type=shlex.split, metavar="TEXT", help='"accelerate launch --num_processes 2"')
    add("--stages", type=stage_list, help="only these, with commas (default: all)")
    add("--dry_run", action="store_true", help="print the plan, what is complete, and the time")
    return parser.parse_args(argv)


def named_folder(text: str) -> tuple[str, Path]:
    """argparse type: NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not equals or not name.isidentifier() or not folder:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=DIR, such as wild=data/test_wild")
    return name, Path(folder)


def positive_float(text: str) -> float:
    """argparse type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def share(text: str) -> float:
    """argparse type: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def stage_list(text: str) -> list[str]:
    """argparse type."""
    from attentionhand.reconstruction.experiment import STAGES

    stages = [stage.strip() for stage in text.split(",") if stage.strip()]
    if not stages or set(stages) - set(STAGES):
        raise argparse.ArgumentTypeError(f"'{text}': the stages are {','.join(STAGES)}")
    return stages


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)

    from attentionhand.reconstruction.experiment import GENERATORS, LAUNCHED, STAGES, Experiment

    unknown = sorted(set(args.generators or []) - set(GENERATORS))
    if unknown:
        raise UserError(f"--generators: there is no '{unknown[0]}', but {', '.join(GENERATORS)}")
    shared = "lab wild upper_bound output_dir texts resolution num_samples added_share".split()
    shared += "threshold sweep seeds bootstrap".split()
    experiment = Experiment(
        tests=dict(args.test),
        generators=args.generators or list(GENERATORS),
        base_model=args.pretrained_model_name_or_path,
        **{f"{script}_args": getattr(args, f"{script}_args") for script in OWNED},
        **{name: getattr(args, name) for name in shared},
    )
    experiment.check()
    check_writable(args.output_dir)
    stages = args.stages or STAGES
    steps = [step for step in experiment.steps() if step.stage in stages]
    if args.dry_run:
        print_plan(experiment.records, steps)
        return
    for step in steps:  # a mistake in what is passed on shows now, not after hours
        if step.script and step.stage in LAUNCHED:
            script_functions(step.script)["parse_args"](step.arguments)
    in_use = f"{args.output_dir}: another experiment is in progress there; wait for it, or choose another folder"
    with hold_lock(args.output_dir / ".reproduce.lock", in_use):
        for number, step in enumerate(steps, start=1):
            say(f"\n[{number}/{len(steps)}] {step.name}")
            run_step(experiment.records, step, args.launcher if step.stage in LAUNCHED else None)
        if "report" in stages:
            from attentionhand.reconstruction.report import write_report

            write_report(experiment, plain_arguments(args))


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything is read."""
    if num_processes() > 1:
        raise UserError("start it as one process; --launcher starts several for the stages that can use them")
    names = [name for name, _ in args.test]
    for option, given in (("--seeds", args.seeds), ("--test", names), ("--sweep", [*args.sweep, args.threshold])):
        if len(set(given)) < len(given):
            raise UserError(f"{option}: the same one twice")
    for script, owned in OWNED.items():
        for argument in getattr(args, f"{script}_args"):
            if argument.partition("=")[0] in owned:
                raise UserError(f"--{script}_args: {argument.partition('=')[0]} is set by the experiment itself")


if __name__ == "__main__":
    main()
