"""The paper's table from one command: data, Hand1000 for every gesture and seed, pictures, metrics, report.

Every stage but evaluate and report is one of the other scripts, whose command is printed. A stage that is complete
with the same inputs is skipped, and a killed one resumes. What a script is given beyond the defaults goes into
--train_args, --generate_args, ... as one quoted text after "=": --train_args="--mixed_precision bf16
--gradient_checkpointing".

--compare adds the paper's comparison to the table: fine-tuned Stable Diffusion (`finetuned`), Imagic on top of both
(`imagic`, `finetuned_imagic`), and Hand1000 by a LoRA of rank 16 (`lora`). Imagic trains on every picture, so it takes
far longer than all the rest; `--imagic_args="--embedding_steps 50 --finetune_steps 100"` makes it shorter. The LoRA is
trained with --train_args and then --lora_args, such as a --finetune_lr of its own.

--ablate adds rows to the table: `--ablate Lambda 0 0.3 1`, `--ablate mu 0 1`, `--ablate schedule staged`, `--ablate
captioner PaliGemma`, or `--ablate without stage_2 stage_3 fusion` (fusion: plain fine-tuning); with
--train_args="--schedule staged" also `--ablate lr_scheduler linear cosine`.

Examples:
  python reproduce.py --gestures call four --source hagrid --annotations hagrid/ann_train_val --output_dir results
  python reproduce.py --gestures call --data_root data --ablate Lambda 0 0.3 1 --ablate without stage_2 stage_3
  python reproduce.py --gestures wave --phrase "waving hand gesture" --captioner plain --enrich_args="--backend rule"
  python reproduce.py --gestures call --data_root data --dry_run
"""

import argparse
from pathlib import Path

from core.diffusion.hub_runs import refuse_push
from core.metrics.options import add_extractor_options, resamples
from core.runs.command_line import (
    argument_parser,
    command_line,
    folder_name,
    fraction,
    natural_int,
    plain_arguments,
    positive_int,
    seed_int,
)
from core.runs.errors import UserError
from core.runs.experiments import add_experiment_options, check_experiment, run_steps
from core.runs.files import check_writable
from core.runs.processes import say
from core.runs.steps import print_plan
from hand1000.enrichment import check_phrase
from hand1000.experiment import (
    BASE_MODEL_OPTIONS,
    COMPARED,
    LAUNCHED,
    STAGES,
    Experiment,
    Row,
    check_arguments,
    table_rows,
)
from hand1000.gestures import PHRASES

PASSED_TO = {  # --caption_args and the like
    "caption": "captioning/*.py",
    "enrich": "captioning/enrich.py",
    "train": "train.py",
    "generate": "image_generation.py",
    "imagic": "hand1000/imagic.py, beyond those of --generate_args",
    "lora": "train.py for the row lora, beyond those of --train_args",
}
TRAINING = (
    *("--gesture", "--data_root", "--captioner", "--output_dir", "--seed", "--fusion_seed", "--max_train_images"),
    *("--pretrained_model_name_or_path", "--resume_from_checkpoint"),
)
OWNED = {  # options of the scripts that the plan sets by itself
    "caption": ("--gesture", "--data_root"),
    "enrich": ("--gesture", "--data_root", "--captioner", "--phrase"),
    "train": TRAINING,
    "lora": (*TRAINING, "--lora_rank", *BASE_MODEL_OPTIONS),
    "generate": (
        *("--img_save_path", "--ckpt", "--mu", "--seed", "--num_images", "--prompts_file", "--image_filenames_file"),
        *("--prompt", "--feature_npy_path", "--pretrained_model_name_or_path"),
    ),
    "imagic": (
        *("--img_save_path", "--ckpt", "--mu", "--seed", "--num_images", "--prompts_file", "--image_filenames_file"),
        *("--image_folder", "--pretrained_model_name_or_path"),
    ),
}
BASE_MODEL = "CompVis/stable-diffusion-v1-4"


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--gestures",
        nargs="+",
        type=folder_name,
        required=True,
        help="names of HaGRID's gestures, or one of your own with --phrase",
    )
    add("--data_root", type=Path, default=Path(), help="folder of the gestures' photos and lists")
    add("--output_dir", type=Path, default=Path("results"), help="folder for models, pictures, tables, report")
    add("--source", type=Path, help="HaGRID download to select photos from, if {gesture}/ is not there yet")
    add("--annotations", type=Path, help="folder of HaGRID's JSON files, {gesture}.json")
    add("--num", type=positive_int, default=1000, help="photos to select for training")
    add("--num_test", type=positive_int, default=1000, help="photos to select for the test")
    add("--captioner", default="BLIP2", help="BLIP2, PaliGemma, VitGpt2, plain, or a name of your own")
    add("--phrase", help="gesture phrase, for a single gesture (default: built-in ones)")
    add("--pretrained_model_name_or_path", default=BASE_MODEL, help="base model: hub id or diffusers folder")
    add("--seeds", nargs="+", type=seed_int, default=[0], help="of training, fusion, drawing; the table has means")
    add("--mu", type=fraction, default=0.7, help="share of the text in generation")
    add(
        "--compare", nargs="+", choices=COMPARED, default=[], metavar="ROW", help=f"of {', '.join(COMPARED)}: see above"
    )
    add("--ablate", nargs="+", action="append", default=[], metavar=("WHAT", "VALUE"), help="further rows, see above")
    add("--num_images", type=positive_int, help="pictures to draw for each row (default: one for each test caption)")
    add("--bootstrap", type=resamples, default=1000, help="resamples of the 95 %% intervals")
    add_extractor_options(parser)
    add("--clip_model", help="CLIP, for how well pictures fit their captions: hub id or local folder")
    attributes = "TorchScript file that finds a caption's attributes in a picture, see docs/metrics.md"
    add("--attribute_classifier", type=Path, help=attributes)
    add("--num_workers", type=natural_int, help="processes that read photos and find hands (default: one per core)")
    add_experiment_options(parser, stages=STAGES, scripts=PASSED_TO, launched=LAUNCHED)
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    check_args(args)
    shared = "gestures seeds data_root output_dir phrase num_images source annotations num num_test protocol".split()
    shared += "feature_extractor inception_weights clip_model attribute_classifier bootstrap num_workers".split()
    experiment = Experiment(
        rows=rows_of(args),
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
    check_arguments(experiment, chosen, launched=bool(args.launcher))

    def report() -> None:
        from hand1000.report import write_report

        write_report(experiment, plain_arguments(args))

    run_steps(experiment.records, steps, report, LAUNCHED, stages=args.stages, jobs=args.jobs, launcher=args.launcher)


def rows_of(args: argparse.Namespace) -> list[Row]:
    """The rows that the arguments ask for; raises UserError as `table_rows`."""
    return table_rows(args.mu, args.captioner, args.ablate, args.compare, args.lora_args)


def further_args_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """What `--{script}_args` passes on, by script."""
    return {script: getattr(args, f"{script}_args") for script in OWNED}


def check_args(args: argparse.Namespace) -> None:
    """Refuse what can't work before the first step runs."""
    once = {"--gestures": args.gestures, "--seeds": args.seeds, "--compare": args.compare}
    check_experiment(further_args_of(args), OWNED, once, jobs=args.jobs, launcher=args.launcher)
    rows_of(args)
    refuse_push("--train_args", args.train_args)
    refuse_push("--lora_args", args.lora_args)
    if args.phrase and len(args.gestures) > 1:
        raise UserError("--phrase is of one gesture; run reproduce.py once for each gesture of your own")
    for option, rows in {"imagic": {"imagic", "finetuned_imagic"}, "lora": {"lora"}}.items():
        if getattr(args, f"{option}_args") and not rows & set(args.compare):
            raise UserError(f"--{option}_args: the table has no such row; add --compare {option}")
    for gesture in args.gestures:
        check_phrase(args.phrase or PHRASES.get(gesture), gesture)


if __name__ == "__main__":
    main()
