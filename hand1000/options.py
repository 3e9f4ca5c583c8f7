"""Command-line options that the scripts which draw pictures share."""

import argparse
from pathlib import Path

from core.diffusion.options import add_generation_options, add_single_file_options
from core.runs.command_line import pixels


def add_picture_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """What to draw, with which model, and how.

    Args:
        required: whether the two lists are.
    """
    add = parser.add_argument
    add("--image_filenames_file", type=Path, required=required, help="file names to save under, one a line")
    add("--prompts_file", type=Path, required=required, help="prompts, one a line, in the same order")
    add(
        "--ckpt",
        required=True,
        help="run folder of train.py or its hub id, released .ckpt, or a base model: hub id, diffusers folder, "
        "single file",
    )
    add("--revision", help="revision of a hub id")
    add("--variant", help="variant of a hub id's files, e.g. fp16")
    add("--img_save_path", type=Path, required=True, help="folder for the pictures, and for nothing else")
    add("--pretrained_model_name_or_path", help="base model of a LoRA run (default: where train.py found it)")
    add_single_file_options(parser, "--ckpt")
    add_generation_options(parser, num_inference_steps=45, guidance_scale=3.0, seed=0)
    add("--resolution", type=pixels, help="pixels per side that the model draws (default: as trained, else 512)")
    add("--image_size", type=saved_size, default=400, help="pixels per side of the saved picture; 0 keeps --resolution")
    add(
        "--vary_seed",
        action="store_true",
        help="another start noise for each prompt (--seed + its line number) instead of the same one",
    )


def saved_size(text: str) -> int:
    """argparse type: pixels a side, or 0."""
    return 0 if text == "0" else pixels(text)
