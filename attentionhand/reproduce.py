"""AttentionHand's tables from one command: train every row, draw the labels of a test, all metrics, report.

Every stage but the report is one of the other scripts, whose command is printed. A stage that is complete with the
same inputs is skipped, and a killed one resumes. What a script is given beyond the defaults goes into --train_args and
--generate_args as one quoted text after "=".

Rows: base (Stable Diffusion by the text alone), t2i_adapter, controlnet (global view only, without the text attention
stage), without_tas, attentionhand; further ones: local_only and separate_weights (of the table of the visual attention
stage, here without the text attention stage), released_tokens and released_noise (as the released code does it, not the
paper), tas_at_inference.

Examples:
  python -m attentionhand.reproduce --data_dir data --test_dir test --output_dir results/attentionhand --dry_run
  python -m attentionhand.reproduce --data_dir data --test_dir test --rows all --seeds 0 1 2 \\
      --train_args="--mixed_precision bf16 --tas_model shared" --generate_args="--mixed_precision bf16 --batch_size 16"
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/reproduce.py`

from core.diffusion.hub_runs import refuse_push
from core.diffusion.model_path import check_model_path
from core.diffusion.pretrained import check_available_model, check_model
from core.metrics.options import add_extractor_options, resamples
from core.runs.command_line import (
    argument_parser,
    command_line,
    natural_int,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.experiments import add_experiment_options, check_experiment, check_step_arguments, run_steps
from core.runs.files import check_writable
from core.runs.processes import say
from core.runs.steps import print_plan

STAGES = ("train", "generate", "evaluate", "report")
LAUNCHED = {"train", "generate"}  # stages that can use several processes
PASSED_TO = {"train": "attentionhand/train.py", "generate": "attentionhand/inference.py"}  # --train_args and the like
OWNED = {  # options of the scripts that the plan sets by itself
    "train": (
        *("--data_dir", "--output_dir", "--pretrained_model_name_or_path", "--resolution", "--seed", "--control"),
        *("--local_view", "--no_tas", "--tas_tokens"),
    ),
    "generate": (
        *("--sample_path", "--output_dir", "--pretrained_model_name_or_path", "--resolution", "--seed", "--weights"),
        *("--no_control", "--num_samples", "--vary_seed", "--texts", "--every", "--tas"),
    ),
}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--data_dir", type=Path, default=Path("data"), help="folder with modalities.json to train on")
    add("--test_dir", type=Path, default=Path("test"), help="folder with modalities.json, photos, joints.npz: unseen")
    add("--output_dir", type=Path, default=Path("results/attentionhand"), help="folder for models, pictures, tables")
    add("--rows", nargs="+", help="rows of the tables, or all (default: the five of the paper's first table)")
    add(
        "--pretrained_model_name_or_path",
        default="stable-diffusion-v1-5/stable-diffusion-v1-5",
        help="base model: hub id or diffusers folder",
    )
    add("--resolution", type=positive_int, default=512, help="pixels per side of training views and of pictures")
    add("--seeds", nargs="+", type=seed_int, default=[0], help="of training and generation; averaged")
    add("--clip_model", help="CLIP, for how well pictures fit their texts: hub id or local folder")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add_extractor_options(parser)
    add("--num_workers", type=natural_int, help="processes that read photos and find hands (default: one per core)")
    add_experiment_options(parser, stages=STAGES, scripts=PASSED_TO, launched=LAUNCHED)
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)

    from attentionhand.experiment import MAIN_ROWS, Experiment, chosen_rows

    shared = "data_dir test_dir output_dir seeds resolution protocol feature_extractor inception_weights".split()
    shared += "clip_model bootstrap num_workers".split()
    experiment = Experiment(
        rows=chosen_rows(args.rows or MAIN_ROWS),
        base_model=args.pretrained_model_name_or_path,
        further_args=further_args_of(args),
        **{name: getattr(args, name) for name in shared},
    )
    experiment.check()
    check_writable(args.output_dir)
    steps = experiment.steps()
    chosen = [step for step in steps if step.stage in args.stages]
    if args.dry_run:
        print_plan(experiment.records, chosen)
        say(f"disk space: {experiment.disk_space()}")
        return
    check_step_arguments(chosen, LAUNCHED)

    def report() -> None:
        from attentionhand.report import write_report

        write_report(experiment, plain_arguments(args))

    run_steps(experiment.records, steps, report, LAUNCHED, stages=args.stages, jobs=args.jobs, launcher=args.launcher)


def further_args_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """What `--{script}_args` passes on, by script."""
    return {script: getattr(args, f"{script}_args") for script in OWNED}


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before the first step runs."""
    from attentionhand.experiment import MAIN_ROWS, chosen_rows

    once = {"--seeds": args.seeds}
    check_experiment(further_args_of(args), OWNED, once, jobs=args.jobs, launcher=args.launcher)
    refuse_push("--train_args", args.train_args)
    check_model_path(args.pretrained_model_name_or_path, None, None)
    if args.clip_model:
        check_model(args.clip_model)
        check_available_model(args.clip_model)
    chosen_rows(args.rows or MAIN_ROWS)


if __name__ == "__main__":
    main()
