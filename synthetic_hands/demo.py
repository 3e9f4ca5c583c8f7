"""Hand1000 in miniature, from nothing to the paper's table: what `make demo` runs.

Draws hands and their captions, then lets reproduce.py do the rest with the miniature Stable Diffusion of this
repository: enrichment by rule, Stage I to III, pictures of the base and of the trained model from held-out captions,
every metric. The base draws hands but not the gesture it is asked for; Hand1000 teaches it.

Examples:
  python -m synthetic_hands.demo --output_dir results/demo
  python -m synthetic_hands.demo --output_dir results/table --gestures call palm peace --seeds 0 1 2
  python -m synthetic_hands.demo --output_dir results/other --pretrained_model_name_or_path results/mini/model
"""

import shlex
import time
from pathlib import Path

from core.diffusion.model_path import check_model_path
from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.processes import cpu_count, say
from core.runs.steps import run_script, script_functions
from synthetic_hands import make_dataset
from synthetic_hands.hand import POSES
from synthetic_hands.train_mini import NOISE_OFFSET

MINI = Path(__file__).parent / "mini"
REPRODUCE = Path(__file__).resolve().parents[1] / "reproduce.py"
CAPTIONER = make_dataset.CAPTIONER
JOBS = min(4, cpu_count())  # the miniature hardly uses a second core; each takes up to 2 GB
# The learning rate suits a model of 7 million weights; Stable Diffusion's is 1e-6. At so high a rate the weights
# never settle: let it fall to 0. The offset is the model's own.
TRAIN_ARGS = f"--resolution 64 --noise_offset {NOISE_OFFSET} --finetune_lr {{rate}} --schedule {{schedule}}"
RATES = {"staged": "2e-4 --lr_scheduler cosine --train_batch_size 4 --finetune_steps 40", "interleaved": "3e-5"}
# 500 and 1,000 steps for every picture, as Imagic's notebook takes, would be hours; a higher rate makes up for fewer.
IMAGIC_ARGS = f"--noise_offset {NOISE_OFFSET} --embedding_steps 20 --finetune_steps 40 --finetune_lr 1e-4"
# A LoRA hardly learns at the rate, and in the steps, that suit all weights: ten times the one, three times the other.
LORA_ARGS = {
    "staged": "--finetune_lr 2e-3 --finetune_steps 120",
    "interleaved": "--finetune_lr 3e-4 --finetune_steps 60",
}
GENERATE_ARGS = "--image_size 0 --vary_seed --num_inference_steps 10 --batch_size 32"


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("results/demo"), help="folder for everything it makes")
    parser.add_argument(
        "--pretrained_model_name_or_path",
        default=str(MINI / "model"),
        metavar="FOLDER",
        help="another miniature, of synthetic_hands.train_mini (default: the one of this repository)",
    )
    parser.add_argument(
        "--gestures", nargs="+", default=["call", "palm", "peace"], metavar="GESTURE", help="of HaGRID v1"
    )
    parser.add_argument("--seeds", nargs="+", type=seed_int, default=[0], help="of training and generation; averaged")
    parser.add_argument("--num", type=positive_int, default=60, help="photos to train on")
    parser.add_argument("--num_test", type=positive_int, default=100, help="other photos, and pictures to draw")
    parser.add_argument("--handedness", choices=["both", "Right", "Left"], default="both", help="which hands to draw")
    parser.add_argument(
        "--schedule", choices=list(RATES), default="staged", help="the paper's order, or the released code's"
    )
    parser.add_argument("--ablate", nargs="+", action="append", default=[], help="further rows: see reproduce.py")
    parser.add_argument("--compare", nargs="+", default=[], help="further rows: see reproduce.py")
    parser.add_argument(
        "--jobs", type=positive_int, default=JOBS, help="steps at a time (default: one for each core, at most four)"
    )
    args = parser.parse_args(argv)
    started = time.monotonic()
    unknown = [gesture for gesture in args.gestures if gesture not in POSES]
    if unknown:
        raise UserError(f"no gesture '{unknown[0]}'; there are {', '.join(POSES)}")
    check_model_path(args.pretrained_model_name_or_path, None, None)

    data, model = args.output_dir / "data", args.pretrained_model_name_or_path
    settings = mini_arguments(args.output_dir, data, CAPTIONER, args.schedule, model)
    table = ["--gestures", *args.gestures, "--seeds", *map(str, args.seeds), *settings, "--jobs", str(args.jobs)]
    table += [part for ablation in args.ablate for part in ("--ablate", *ablation)]
    if args.compare:
        table += ["--compare", *args.compare]
    if {"imagic", "finetuned_imagic"} & set(args.compare):
        table.append(f"--imagic_args={IMAGIC_ARGS}")
    if "lora" in args.compare:
        table.append(f"--lora_args={LORA_ARGS[args.schedule]}")
    functions = script_functions(REPRODUCE)
    functions["check_args"](functions["parse_args"](table))  # a mistake shows before anything is drawn

    counts = ["--num", str(args.num), "--num_test", str(args.num_test), "--handedness", args.handedness]
    arguments = ["--output_dir", str(data), "--gestures", *args.gestures, *counts]
    say(f"$ python -m synthetic_hands.make_dataset {shlex.join(arguments)}")
    make_dataset.main(arguments)
    say(f"\n$ python reproduce.py {shlex.join(table)}")
    run_script(REPRODUCE, table)
    say(f"Done in {time.monotonic() - started:.0f} s. Look at {args.output_dir / 'grid.png'}: real, base, Hand1000.")


def mini_arguments(
    output_dir: Path, data_root: Path, captioner: str, schedule: str, model: str = str(MINI / "model")
) -> list[str]:
    """The arguments of reproduce.py that belong to the miniature model."""
    train_args = TRAIN_ARGS.format(rate=RATES[schedule], schedule=schedule)
    return [
        *("--output_dir", str(output_dir), "--data_root", str(data_root), "--captioner", captioner),
        *("--pretrained_model_name_or_path", model, "--feature_extractor", str(MINI / "features.pt")),
        *("--attribute_classifier", str(MINI / "attributes.pt")),
        *("--enrich_args=--backend rule", f"--train_args={train_args}", f"--generate_args={GENERATE_ARGS}"),
    ]


if __name__ == "__main__":
    main()
