"""The claim in miniature: does a network for 3D hands get better in the wild with pictures that AttentionHand drew?

Half of the drawn gestures are known from the lab only (hands on black), the other half from the wild only (hands with
sleeves before walls). Generators learn the wild from the latter and draw the labels of the former; the test shows new
hands of the lab's gestures, in the wild and in the lab. Draws the data, then runs
attentionhand.reconstruction.reproduce with the miniature Stable Diffusion; a killed run resumes when started again.

Example:
  python -m benchmarks.reconstruction_mini --output_dir results/reconstruction_mini
"""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.files import atomic_folder
from core.runs.processes import say
from core.runs.steps import run_script
from synthetic_hands import make_dataset
from synthetic_hands.demo import JOBS, MINI
from synthetic_hands.hand import POSES

REPRODUCE = Path(__file__).resolve().parents[1] / "attentionhand" / "reconstruction" / "reproduce.py"
LAB_GESTURES, WILD_GESTURES = list(POSES)[::2], list(POSES)[1::2]
HAND_BRIGHTNESS = 20  # a brighter pixel of a mesh image belongs to the hand
TRAIN_ARGS = (
    "--train_batch_size 8 --learning_rate 5e-4 --tas_model shared --tas_steps 5 --validation_steps 0 "
    "--checkpointing_steps 100 --num_workers 0"
)
DRAW_ARGS = "--guidance_scale 3 --num_inference_steps 10 --batch_size 16"
RECONSTRUCTION_ARGS = "--backbone resnet10 --image_size 48 --learning_rate 1e-3"


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder for data, models, pictures, tables")
    add("--num", type=positive_int, default=20, help="labels of each of the 9 gestures from the lab")
    add("--num_wild", type=positive_int, default=60, help="wild pictures of each of the 9 other gestures")
    add("--num_test", type=positive_int, default=30, help="test pictures of each of the lab's gestures")
    add("--num_samples", type=positive_int, default=2, help="pictures that a generator draws of each label")
    add("--generator_steps", type=positive_int, default=600, help="training steps of a generator, 8 samples each")
    add("--steps", type=positive_int, default=300, help="training steps of a reconstruction network, 32 pictures each")
    add("--seeds", nargs="+", type=seed_int, default=[0, 1, 2], help="of the reconstruction networks")
    add("--sweep", nargs="+", default=["0.1", "0.2"], help="further thresholds of the generated hands' error")
    add("--jobs", type=positive_int, default=JOBS, help="steps at a time (default: one for each core, at most four)")
    args = parser.parse_args(argv)

    data = args.output_dir / "data"
    for name, gestures, num, seed in (
        ("wild_same_poses", LAB_GESTURES, args.num, 0),
        ("wild_other_poses", WILD_GESTURES, args.num_wild, 0),
        ("test_wild", LAB_GESTURES, args.num_test, 1),
    ):
        layout = ["--layout", "attentionhand", "--size", "64", "--num", str(num), "--seed", str(seed)]
        make_dataset.main(["--output_dir", str(data / name), *layout, "--gestures", *gestures])
    put_on_black(data / "wild_same_poses", data / "lab")
    put_on_black(data / "test_wild", data / "test_lab")
    arguments = [
        *("--lab", str(data / "lab"), "--wild", str(data / "wild_other_poses")),
        *("--upper_bound", str(data / "wild_same_poses"), "--output_dir", str(args.output_dir / "results")),
        *("--test", f"wild={data / 'test_wild'}", "--test", f"lab={data / 'test_lab'}"),
        *("--pretrained_model_name_or_path", str(MINI / "model"), "--resolution", "64"),
        *("--num_samples", str(args.num_samples), "--seeds", *map(str, args.seeds), "--sweep", *args.sweep),
        *("--train_args", f"{TRAIN_ARGS} --max_train_steps {args.generator_steps}", "--draw_args", DRAW_ARGS),
        *("--reconstruction_args", f"{RECONSTRUCTION_ARGS} --num_workers 0", "--steps", str(args.steps)),
        *("--jobs", str(args.jobs)),
    ]
    say(f"$ python {REPRODUCE.name} {shlex.join(arguments)}")
    run_script(REPRODUCE, arguments)


def put_on_black(source: Path, target: Path) -> None:
    """A copy of a drawn data set with nothing in its photos but the hand, as in a lab with a black curtain."""
    if target.exists():
        return
    with atomic_folder(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        for line in (source / "modalities.json").read_text(encoding="utf-8").splitlines():
            names = json.loads(line)
            photo, mesh = (np.asarray(Image.open(source / names[name])) for name in ("rgb", "mesh"))
            Image.fromarray(photo * (mesh > HAND_BRIGHTNESS)).save(folder / names["rgb"])


if __name__ == "__main__":
    main()
