"""Does AttentionHand follow the mesh? Trained on synthetic hands from the miniature Stable Diffusion, in variants.

For each variant: landmark error, PCK@0.2 and share of hands on held-out meshes, against their own labels and against
shuffled ones. Runs attentionhand.train, .inference and .evaluate; after a kill the same command resumes.

Example:
  python -m benchmarks.attentionhand_mini --output_dir results/attentionhand_mini --steps 500
"""

import json
import time
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, positive_int
from synthetic_hands.demo import MINI

COMMON = ["--pretrained_model_name_or_path", str(MINI / "model"), "--resolution", "64"]
VARIANTS = {
    "VAS": ["--no_tas"],
    "VAS, global view only": ["--no_tas", "--local_view", "none"],
    "VAS + TAS": ["--tas_model", "shared", "--tas_steps", "5"],
}


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for data, models and pictures")
    parser.add_argument("--num", type=positive_int, default=60, help="samples of each of the 18 gestures")
    parser.add_argument("--num_test", type=positive_int, default=6, help="held-out samples of each gesture")
    parser.add_argument("--steps", type=positive_int, default=500, help="training steps of 8 samples")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="which to train")
    args = parser.parse_args(argv)

    from attentionhand import evaluate, inference, train
    from synthetic_hands import make_dataset

    folder = args.output_dir
    for name, num, seed in (("train", args.num, 0), ("test", args.num_test, 1)):
        layout = ["--layout", "attentionhand", "--size", "64", "--num", str(num), "--seed", str(seed)]
        make_dataset.main(["--output_dir", str(folder / name), *layout])
    lines = ["| trained | labels | hand found | landmark error | PCK@0.2 | seconds a step |", "| --- " * 6 + "|"]
    for variant in args.variants:
        place = folder / variant.replace(" ", "_").replace(",", "")
        resumed, started = (place / "run").exists(), time.monotonic()
        train.main(
            [
                *("--data_dir", str(folder / "train"), "--output_dir", str(place / "run"), *COMMON, *VARIANTS[variant]),
                *("--train_batch_size", "8", "--learning_rate", "5e-4", "--max_train_steps", str(args.steps)),
                *("--validation_steps", "0", "--checkpointing_steps", "100", "--resume_from_checkpoint", "latest"),
            ]
        )
        seconds = "–" if resumed else f"{(time.monotonic() - started) / args.steps:.2f}"
        inference.main(
            [
                *("--weights", str(place / "run"), "--output_dir", str(place / "pictures"), *COMMON),
                *("--sample_path", str(folder / "test" / "modalities.json"), "--num_samples", "1"),
                *("--guidance_scale", "3"),
            ]
        )
        for labels, more in (("own", []), ("shuffled", ["--shuffle"])):
            result = place / f"{labels}.json"
            evaluate.main(
                [
                    *("--labels", str(folder / "test" / "joints.npz"), "--image_folder", str(place / "pictures")),
                    *("--image_size", "64", "--json", str(result), *more),
                ]
            )
            values = json.loads(result.read_text())["scores"]
            cells = [
                "{:.3f} [{:.3f}, {:.3f}]".format(*values[name])
                for name in ("hand found", "landmark error 2D", "PCK@0.2")
            ]
            lines.append(f"| {variant} | {labels} | {' | '.join(cells)} | {seconds} |")
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
