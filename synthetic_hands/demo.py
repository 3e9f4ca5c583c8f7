"""Every stage of Hand1000 on a dozen drawn photos with a tiny random model: what `make demo` runs.

It shows the commands and what they write. Its pictures mean nothing: the model has random weights.

Example:
  python -m synthetic_hands.demo --output_dir results/demo
"""

import shlex
import time
from pathlib import Path

from hand1000.cli import argument_parser, command_line, positive_int
from synthetic_hands.drawn import write_photos

GESTURE = "palm"


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("results/demo"), help="folder for everything it makes")
    parser.add_argument("--num_photos", type=positive_int, default=12, help="photos to draw and to train on")
    args = parser.parse_args(argv)

    import cal_fid
    import cal_kid
    import cal_mean_feature
    import hand_confidence
    import image_generation
    import train
    from captioning import enrich
    from synthetic_hands.feature_extractor import save_feature_extractor
    from synthetic_hands.tiny_model import RESOLUTION, save_tiny_model

    started = time.monotonic()
    data, base, run, pictures = (args.output_dir / name for name in ("data", "tiny_model", "run", "generated"))
    print(f"Drawing {args.num_photos} photos of the gesture '{GESTURE}' and their captions into {data}")
    write_photos(data, GESTURE, args.num_photos)
    print(f"Making a tiny Stable Diffusion with random weights in {base}")
    save_tiny_model(base)

    names, captions = data / f"{GESTURE}_drawn_file_name.txt", data / f"{GESTURE}_drawn_modified.txt"
    step(enrich, f"--gesture {GESTURE} --captioner drawn --backend rule --data_root {quote(data)}")
    step(cal_mean_feature, f"--gesture {GESTURE} --data_root {quote(data)}")
    step(
        train,
        f"--gesture {GESTURE} --captioner drawn --data_root {quote(data)} --resolution {RESOLUTION} "
        f"--pretrained_model_name_or_path {quote(base)} --output_dir {quote(run)} --resume_from_checkpoint latest",
    )
    step(
        image_generation,
        f"--image_filenames_file {quote(names)} --prompts_file {quote(captions)} --num_images 4 --mu 0 0.25 0.5 0.75 1 "
        f"--feature_npy_path {quote(data / (GESTURE + '.npy'))} --ckpt {quote(run)} --img_save_path {quote(pictures)} "
        f"--resolution {RESOLUTION} --image_size 128",
    )
    extractor = save_feature_extractor(args.output_dir / "feature_extractor.pt")
    real, fake = f"--real_images {quote(data / GESTURE)}", f"--fake_images {quote(pictures / 'mu_0.75')}"
    step(cal_fid, f"{real} {fake} --feature_extractor {quote(extractor)}")
    step(cal_kid, f"{real} {fake} --feature_extractor {quote(extractor)}")
    step(hand_confidence, f"--image_folder {quote(data / GESTURE)}")
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Look at {pictures / 'grid.png'} and {run / 'losses.csv'}.\n"
        "The pictures mean nothing: this model has random weights. The commands are those of the real run; give them\n"
        '--pretrained_model_name_or_path CompVis/stable-diffusion-v1-4 and your photos (README, "Your own gesture").'
    )


def step(script, arguments: str) -> None:
    """Print a stage's command and run it in this process."""
    print(f"\n$ python {script.__name__.replace('.', '/')}.py {arguments}", flush=True)
    script.main(shlex.split(arguments))


def quote(path: Path) -> str:
    return shlex.quote(str(path))


if __name__ == "__main__":
    main()
