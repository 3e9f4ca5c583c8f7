"""AttentionHand in miniature, from nothing to the paper's table: what `make demo-attentionhand` runs.

Draws hands with their mesh images and labels, others to test on, and lets attentionhand.reproduce do the rest with the
miniature Stable Diffusion of this repository: trainings, pictures of the test's meshes, every metric, report. A killed
run resumes when it is started again.

Examples:
  python -m synthetic_hands.demo_attentionhand --output_dir results/demo-attentionhand
  python -m synthetic_hands.demo_attentionhand --output_dir results/table-attentionhand --rows all --seeds 0 1 2
"""

import shlex
import time
from pathlib import Path

from attentionhand import reproduce
from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.processes import say
from synthetic_hands import make_dataset
from synthetic_hands.demo import JOBS, MINI
from synthetic_hands.hand import POSES

SIZE = 64  # pixels a side that the miniature draws
ROWS = ["base", "t2i_adapter", "controlnet", "without_tas", "attentionhand", "local_only"]
# The learning rate suits a stage of 3 million weights; at Stable Diffusion's size it is 1e-5.
TRAIN_ARGS = "--train_batch_size 8 --learning_rate 5e-4 --tas_model shared --tas_steps 5 --max_train_steps {steps} "
TRAIN_ARGS += "--validation_steps 0 --checkpointing_steps 100 --num_workers 0"
GENERATE_ARGS = "--guidance_scale 3 --batch_size 18"
TEST_SEED = 1


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("results/demo-attentionhand"), help="folder for everything it makes")
    add("--gestures", nargs="+", default=list(POSES), metavar="GESTURE", help="of HaGRID v1")
    add("--num", type=positive_int, default=60, help="samples of each gesture to train on")
    add("--num_test", type=positive_int, default=6, help="other samples of each gesture, whose meshes are drawn")
    add("--steps", type=positive_int, default=500, help="training steps of 8 samples")
    add("--rows", nargs="+", default=ROWS, help="rows of the tables: see attentionhand.reproduce")
    add("--seeds", nargs="+", type=seed_int, default=[0], help="of training and generation; averaged")
    add("--jobs", type=positive_int, default=JOBS, help="steps at a time (default: one for each core, at most four)")
    args = parser.parse_args(argv)
    started = time.monotonic()
    table = mini_arguments(args.output_dir, args.steps)
    table += ["--rows", *args.rows, "--seeds", *map(str, args.seeds), "--jobs", str(args.jobs)]
    reproduce.check_args(reproduce.parse_args(table))  # a mistake shows before anything is drawn
    for name, num, seed in (("train", args.num, 0), ("test", args.num_test, TEST_SEED)):
        arguments = ["--layout", "attentionhand", "--output_dir", str(args.output_dir / "data" / name)]
        arguments += ["--gestures", *args.gestures, "--size", str(SIZE), "--num", str(num), "--seed", str(seed)]
        say(f"$ python -m synthetic_hands.make_dataset {shlex.join(arguments)}")
        make_dataset.main(arguments)
    say(f"\n$ python -m attentionhand.reproduce {shlex.join(table)}")
    reproduce.main(table)
    say(f"Done in {time.monotonic() - started:.0f} s. Look at {args.output_dir / 'grid.png'}: mesh, photo, every row.")


def mini_arguments(output_dir: Path, steps: int) -> list[str]:
    """The arguments of attentionhand.reproduce that belong to the miniature model."""
    data = output_dir / "data"
    return [
        *("--data_dir", str(data / "train"), "--test_dir", str(data / "test"), "--output_dir", str(output_dir)),
        *("--pretrained_model_name_or_path", str(MINI / "model"), "--resolution", str(SIZE)),
        *("--feature_extractor", str(MINI / "features.pt")),
        *(f"--train_args={TRAIN_ARGS.format(steps=steps)}", f"--generate_args={GENERATE_ARGS}"),
    ]


if __name__ == "__main__":
    main()
