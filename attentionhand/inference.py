"""Generate pictures from mesh images and texts: DDIM 20 steps, scale 9, 4 samples a label, as released.

Writes result_000_0.png ... (label, sample) and a sheet mesh | samples to --output_dir; pictures.jsonl has the label and
the text of each picture. Pictures of several labels are drawn together, and with accelerate launch by several
processes, which changes them by rounding only. A run that was killed is resumed by the same command: it draws the
pictures that are missing.

Examples:
  python -m attentionhand.inference --weights output/attentionhand
  python -m attentionhand.inference --weights weights/attentionhand.ckpt \\
      --sample_path attentionhand/samples/modalities.json
  accelerate launch --num_processes 2 -m attentionhand.inference --weights output/attentionhand --vary_seed \\
      --sample_path data/modalities.json --texts scenes.txt --every --num_samples 1 --batch_size 16
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python attentionhand/inference.py`

from attentionhand.runs import PICTURE_LIST, PICTURES, finished_training, identity_of_weights, local_weights
from core.diffusion.model_path import check_model_path
from core.diffusion.options import add_generation_options, add_model_options
from core.runs.command_line import argument_parser, command_line, finite_float, pixels, plain_arguments, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, fingerprint_if_local, model_identity, read_lines, write_lines
from core.runs.processes import counted, from_main_process, is_main_process, progress, say, start_processes
from core.runs.run import Run
from core.runs.sheets import contact_sheet, save_png
from core.runs.software import software

if TYPE_CHECKING:
    from attentionhand.data import Sample

# torch and diffusers are imported inside functions: --help and a wrong path answer at once.

# Samples, texts and weights count by their content; the size of a batch changes pictures by rounding only.
NOT_SETTINGS = {"output_dir", "sample_path", "weights", "texts", "batch_size"}
SHEET, SHEET_ROWS, SHEET_COLUMNS = "sheet.png", 50, 8


class Picture(NamedTuple):
    """A picture to draw."""

    path: Path
    label: int  # its place among the samples
    text: str
    seed: int  # of its start noise
    number: int  # which of the pictures that share the seed


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--sample_path",
        type=Path,
        default=Path(__file__).parent / "samples" / "modalities.json",
        help="modalities.json with mesh and text of each label",
    )
    add("--texts", type=Path, help="other texts, one a line: line i for label i, or with --every all lines for each")
    add("--every", action="store_true", help="draw every label with every line of --texts")
    add(
        "--weights",
        type=Path,
        nargs="+",
        default=[],
        help="run folder of attentionhand.train, its hub id or its checkpoint, or a released .ckpt; several control by "
        "their mean",
    )
    add("--no_control", action="store_true", help="draw without weights, by the text alone: the base model")
    add_model_options(parser, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    add("--output_dir", type=Path, default=Path("results/attentionhand"), help="folder for the pictures")
    add("--num_samples", type=positive_int, default=4, help="pictures of each label and text")
    add("--batch_size", type=positive_int, default=4, help="pictures at a time on each process")
    add_generation_options(parser, num_inference_steps=20, guidance_scale=9.0, seed=42)
    add(
        "--vary_seed",
        action="store_true",
        help="another start noise for each label (--seed + its number) instead of the same one",
    )
    add("--strength", type=finite_float, default=1.0, help="strength of the control")
    add("--guess_mode", action="store_true", help="control the pass with the text only, and shallow layers less")
    add("--only_mid_control", action="store_true", help="for weights that were trained with --only_mid_control")
    add("--a_prompt", default="", help="appended to every text after a comma")
    add("--n_prompt", default="", help="negative prompt")
    add("--tas", action="store_true", help="text attention stage before each step (the released code has it off)")
    add("--tas_verbs", choices=("ending", "nltk"), default="ending", help="how its verbs are found, as in training")
    add("--tas_steps", type=positive_int, default=5, help="its gradient steps before each DDIM step")
    add("--resolution", type=pixels, default=512, help="pixels per side")
    return parser.parse_args(argv)


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    weights = [local_weights(path) for path in args.weights]
    check_weights(weights, no_control=args.no_control, only_mid_control=args.only_mid_control)
    check_writable(args.output_dir)
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)

    from attentionhand.data import content_hash, read_modalities

    processes = start_processes()
    samples = read_modalities(args.sample_path, with_rgb=False)
    pictures = list_of_pictures(
        args.output_dir,
        texts_of_labels([sample.text for sample in samples], args.texts, args.every),
        num_samples=args.num_samples,
        seed=args.seed,
        vary_seed=args.vary_seed,
    )
    settings = {
        **plain_arguments(args, without=NOT_SETTINGS),
        "pretrained_model_name_or_path": model_identity(args.pretrained_model_name_or_path),
        "original_config": model_identity(args.original_config),
        "config": model_identity(args.config),
        "samples": from_main_process(content_hash, samples),
        "texts": fingerprint_if_local(args.texts),
        "weights": identity_of_weights(weights),
    }
    facts = {
        "weights": [str(path.resolve()) for path in weights],
        "arguments": plain_arguments(args),
        "software": software(),
    }
    run = Run(args.output_dir / PICTURES, settings, what="generation of pictures")
    with run.hold():
        processes.wait_for_everyone()  # the main process holds the folder
        was_finished = run.is_finished()
        batches = [pictures[start : start + args.batch_size] for start in range(0, len(pictures), args.batch_size)]
        missing = [batch for batch in batches if not all(picture.path.is_file() for picture in batch)]
        count = sum(not picture.path.is_file() for batch in missing for picture in batch)
        processes.wait_for_everyone()  # every process has seen the same pictures missing
        if was_finished and not missing:
            say(f"{args.output_dir}: already finished with these settings")
            return
        run.begin(**facts)

        from attentionhand.generation import draw_batch, load_control
        from attentionhand.text_attention import layers_at
        from core.diffusion.encoding import encode_texts, latent_shape
        from core.diffusion.sampling import save_picture, start_noise
        from core.diffusion.stable_diffusion import load_stable_diffusion

        device = processes.device
        pipe = load_stable_diffusion(
            args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
        )
        shape = (args.num_samples, *latent_shape(pipe, args.resolution)[1:])
        control = load_control(
            weights, pipe, device, guess_mode=args.guess_mode, only_mid_control=args.only_mid_control
        )
        if identity_of_weights(weights) != settings["weights"]:
            raise UserError("--weights: they have changed since this command was started; start it again")
        if args.tas and not layers_at(pipe.unet, level=2):
            raise UserError("--tas: this model has no cross-attention at a quarter of the latents' side")
        negative_embeds = encode_texts(pipe, [args.n_prompt], device, desc=None)

        own = missing[processes.process_index :: processes.num_processes]
        with progress(total=len(own) * args.num_inference_steps, desc="Drawing", unit="step") as bar:
            for batch in own:  # always whole, so that what is drawn again has the same bits
                drawn = {number: mesh_of(samples[number], args.resolution) for number in {one.label for one in batch}}
                images = draw_batch(
                    pipe,
                    control,
                    # With the comma also before nothing, as released.
                    [f"{picture.text}, {args.a_prompt}" for picture in batch],
                    negative_embeds,
                    np.stack([drawn[picture.label] for picture in batch]),
                    [start_noise(picture.seed, shape)[picture.number] for picture in batch],
                    device,
                    num_inference_steps=args.num_inference_steps,
                    guidance_scale=args.guidance_scale,
                    strength=args.strength,
                    mixed_precision=args.mixed_precision,
                    tas_steps=args.tas_steps if args.tas else 0,
                    tas_verbs=args.tas_verbs,
                    after_step=bar.update,
                )
                for picture, image in zip(batch, images, strict=True):
                    if not picture.path.is_file():
                        save_picture(image, picture.path)
        processes.wait_for_everyone()

        if is_main_process():
            write_lines(args.output_dir / PICTURE_LIST, [json.dumps(entry_of(picture)) for picture in pictures])
            save_png(sheet_of(samples, pictures, args.resolution), args.output_dir / SHEET)
            run.finish(**facts)
        total, labels = counted(len(pictures), "picture"), counted(len(samples), "label")
        say(f"{args.output_dir}: {total} of {labels}, {count} drawn now")


def check_weights(weights: Sequence[Path], *, no_control: bool, only_mid_control: bool) -> None:
    """Refuse a lack of weights, and those of an unfinished training or of one with another --only_mid_control.

    Raises:
        UserError
    """
    if bool(weights) == no_control:
        raise UserError("give --weights, or --no_control to draw by the text alone")
    for path in weights:
        training = finished_training(path)
        if training and (trained := training.settings.get("only_mid_control", False)) != only_mid_control:
            needed = "pass" if trained else "leave out"
            raise UserError(f"{path}: trained with --only_mid_control {trained}; {needed} that flag")


def texts_of_labels(own: Sequence[str], file: Path | None, every: bool) -> list[list[str]]:
    """The texts that each label is drawn with: its own, a line of `file`, or all of its lines.

    Raises:
        UserError: no such file, `every` without one, or another number of lines than labels.
    """
    if not file:
        if every:
            raise UserError("--every draws each label with all lines of --texts; give that file")
        return [[text] for text in own]
    lines = read_lines(file)
    if every:
        return [lines] * len(own)
    if len(lines) != len(own):
        raise UserError(
            f"{file}: {counted(len(lines), 'line')} for {counted(len(own), 'label')}; one each, or pass --every"
        )
    return [[line] for line in lines]


def list_of_pictures(
    folder: Path, texts: Sequence[Sequence[str]], *, num_samples: int, seed: int, vary_seed: bool
) -> list[Picture]:
    """Every picture, by label, then text, then sample; which batch it falls into does not change it.

    Args:
        texts: of each label.
        vary_seed: each label and text has a start noise of its own, of `seed` + its number.
    """
    pictures = []
    for label, own in enumerate(texts):
        for place, text in enumerate(own):
            noise = seed + vary_seed * (label * len(own) + place)
            for number in range(num_samples):
                path = folder / f"result_{label:03d}_{place * num_samples + number}.png"
                pictures.append(Picture(path, label, text, noise, number))
    return pictures


def entry_of(picture: Picture) -> dict[str, str | int]:
    """A line of the list of pictures."""
    return {"file": picture.path.name, "label": picture.label, "text": picture.text}


def mesh_of(sample: "Sample", resolution: int) -> np.ndarray:
    """The mesh image of a sample as it controls a picture, (S, S) uint8."""
    from attentionhand.data import load_picture
    from attentionhand.generation import control_image

    return control_image(load_picture(sample.mesh), resolution)


def sheet_of(samples: Sequence["Sample"], pictures: Sequence[Picture], resolution: int) -> Image.Image:
    """Mesh and pictures of the first labels, a row each, with the text below."""
    own: dict[int, list[Picture]] = {}
    for picture in pictures:
        if picture.label < SHEET_ROWS:
            own.setdefault(picture.label, []).append(picture)
    rows = [
        [Image.fromarray(mesh_of(samples[label], resolution)), *(one.path for one in drawn[:SHEET_COLUMNS])]
        for label, drawn in own.items()
    ]
    texts = [drawn[0].text for drawn in own.values()]
    numbers = [f"sample {number + 1}" for number in range(len(rows[0]) - 1)]
    return contact_sheet(rows, column_labels=["mesh", *numbers], row_labels=texts)


if __name__ == "__main__":
    main()
