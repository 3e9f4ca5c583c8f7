"""Command-line options that several scripts share, under the names of diffusers' examples."""

import argparse
import importlib.util

from core.runs.command_line import ddim_steps, finite_float, positive_int, seed_int
from core.runs.errors import UserError

PRECISIONS = ("no", "fp16", "bf16")
HUB_OPTIONS = {"push_to_hub", "hub_model_id", "hub_private_repo"}  # no result depends on them


def add_model_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Which Stable Diffusion to start from."""
    parser.add_argument(
        "--pretrained_model_name_or_path",
        default=default,
        help="base model: hub id, diffusers folder, or CompVis-style .ckpt / .safetensors",
    )
    add_single_file_options(parser, "base model")


def add_single_file_options(parser: argparse.ArgumentParser, of: str) -> None:
    """What a single file needs where the hub can't be reached."""
    parser.add_argument("--original_config", help=f"YAML file with the architecture of a single-file {of}")
    parser.add_argument("--config", help=f"diffusers folder with the configs and tokenizer of a single-file {of}")


def add_training_options(parser: argparse.ArgumentParser, *, seed_of: str) -> None:
    """Precision, memory, checkpoints and logs of a training."""
    add = parser.add_argument
    add("--seed", type=seed_int, default=0, help=f"seed of {seed_of}")
    add_precision_option(parser)
    add_memory_options(parser)
    add_checkpoint_options(parser)


def add_memory_options(parser: argparse.ArgumentParser) -> None:
    """Memory and speed of training steps."""
    add = parser.add_argument
    add("--allow_tf32", action="store_true", help="TensorFloat-32 for float32 products on NVIDIA GPUs: faster, coarser")
    add("--gradient_checkpointing", action="store_true", help="less memory, about a third more time")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' 8-bit optimizer, for less memory")


def add_hub_options(parser: argparse.ArgumentParser) -> None:
    """Where a finished training goes on the Hugging Face hub."""
    add = parser.add_argument
    add("--push_to_hub", action="store_true", help="put the finished run on the Hugging Face hub (hf auth login)")
    add("--hub_model_id", help="its name there, owner/name (default: your own, with the name of --output_dir)")
    add("--hub_private_repo", action="store_true", help="where it is not there yet, make it a private one")


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Which checkpoints to keep and to resume from, and logs."""
    add = parser.add_argument
    add("--checkpoints_total_limit", type=positive_int, default=1, help="how many checkpoints to keep")
    add("--resume_from_checkpoint", help='"latest", or a checkpoint\'s name or path (default: start anew)')
    add("--report_to", help="tensorboard, or another tracker that accelerate knows; logs in {output_dir}/logs")


def check_8bit_adam(use_8bit_adam: bool) -> None:
    """Raises UserError where `--use_8bit_adam` is asked for without bitsandbytes."""
    if use_8bit_adam and not importlib.util.find_spec("bitsandbytes"):
        raise UserError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes")


def add_precision_option(parser: argparse.ArgumentParser) -> None:
    """What the networks compute in."""
    arithmetic = "arithmetic of the networks; no: float32; fp16 needs a GPU"
    parser.add_argument("--mixed_precision", choices=PRECISIONS, default="no", help=arithmetic)


def add_generation_options(
    parser: argparse.ArgumentParser, *, num_inference_steps: int, guidance_scale: float, seed: int
) -> None:
    """How pictures are drawn."""
    add = parser.add_argument
    add("--num_inference_steps", type=ddim_steps, default=num_inference_steps, help="DDIM steps, at most 999")
    add("--guidance_scale", type=finite_float, default=guidance_scale, help="classifier-free guidance; 1 is none")
    add("--seed", type=seed_int, default=seed, help="seed of the start noise")
    add_precision_option(parser)
