"""Seconds and peak memory of one Stage II and one Stage III step, as train.py takes them, with random weights.

A photo costs 10 steps of Stage II and 20 of Stage III. TFLOP a step are counted by torch; Stage II is about two UNet
forwards (the backward pass goes to the embedding only), Stage III about three.

Examples:
  python -m benchmarks.train_step --size tiny
  python -m benchmarks.train_step --size sd14 --resolution 512 --steps 2 --gradient_checkpointing
  python -m benchmarks.train_step --size sd14 --mixed_precision bf16 --compile
"""

import time
from typing import NamedTuple

from core.diffusion.options import PRECISIONS
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.processes import start_accelerator
from core.runs.software import machine
from core.runs.steps import peak_memory, reset_peak_memory
from hand1000.hyperparameters import Hyperparameters

STAGES = "II (embedding)", "III (UNet)"


class Timing(NamedTuple):
    """One stage's step."""

    seconds: float
    tflop: float  # 0 where the UNet is compiled, which hides its operations
    peak: float  # GB of the GPU; on the CPU of the whole process
    start: float  # seconds of the first step: what compiling takes


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--size", choices=("tiny", "sd14"), default="tiny", help="the demo's UNet, or Stable Diffusion 1.4's 860 M")
    add("--resolution", type=positive_int, default=512, help="pixels per side; latents are an eighth (tiny: a quarter)")
    add("--train_batch_size", type=positive_int, default=1, help="photos per step")
    add("--steps", type=positive_int, default=5, help="steps to time, after one to warm up")
    add("--mixed_precision", choices=PRECISIONS, default="no", help="precision of the UNet's arithmetic")
    add("--allow_tf32", action="store_true", help="as train.py's")
    add("--gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' 8-bit Adam in Stage III")
    add("--lora_rank", type=positive_int, help="as train.py's")
    add("--compile", nargs="?", const="default", help="as train.py's: torch.compile the UNet, in this mode")
    add("--channels_last", action="store_true", help="as train.py's")
    args = parser.parse_args(argv)

    params = Hyperparameters(
        mixed_precision=args.mixed_precision,
        use_8bit_adam=args.use_8bit_adam,
        lora_rank=args.lora_rank,
        compile=args.compile,
        channels_last=args.channels_last,
    )
    print(f"{args.size}, {args.resolution} pixels, batch {args.train_batch_size}, on {machine()}")
    print("| stage | seconds a step | TFLOP a step | TFLOP/s | peak memory |\n| --- | --- | --- | --- | --- |")
    timings = time_stages(
        args.size,
        args.resolution,
        params,
        batch_size=args.train_batch_size,
        steps=args.steps,
        allow_tf32=args.allow_tf32,
        gradient_checkpointing=args.gradient_checkpointing,
    )
    for stage, timing in zip(STAGES, timings):
        speed = (f"{timing.tflop:.3f}", f"{timing.tflop / timing.seconds:.2f}") if timing.tflop else ("-", "-")
        print(f"| {stage} | {timing.seconds:.3f} | {' | '.join(speed)} | {timing.peak:.1f} GB |")
    photo = seconds_of_photo(timings, params)
    print(f"One photo of the interleaved schedule: {photo:.1f} s, {60 / photo:.2f} photos a minute")


def time_stages(
    size: str,
    resolution: int,
    params: Hyperparameters,
    *,
    batch_size: int = 1,
    steps: int = 5,
    allow_tf32: bool = False,
    gradient_checkpointing: bool = False,
) -> list[Timing]:
    """A step of Stage II and one of Stage III, with random weights."""
    import torch
    from diffusers import DDPMScheduler
    from torch.utils.flop_counter import FlopCounterMode

    from hand1000.draws import Draw
    from hand1000.lora import add_lora
    from hand1000.schedules import denoiser_of, first_state, unet_optimizer
    from hand1000.stages import Photos, finetune_stable_diffusion, optimise_text_embedding

    accelerator = start_accelerator(mixed_precision=params.mixed_precision, allow_tf32=allow_tf32)
    device = accelerator.device
    unet, factor = build_unet(size, device)
    unet.train()
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    if params.lora_rank:
        add_lora(unet, params.lora_rank, seed=0, mixed_precision=params.mixed_precision)
    denoiser = denoiser_of(unet, noise_scheduler, accelerator, params, first_state(params))

    latents = torch.randn(batch_size, 4, resolution // factor, resolution // factor)
    prompt_embeds = torch.randn(batch_size, 77, unet.config.cross_attention_dim)
    photos = Photos(["a photo"] * batch_size, latents, prompt_embeds).to(device)
    draws = [Draw(torch.randn_like(latents), torch.randint(1000, (batch_size,))).to(device) for _ in range(steps)]
    optimizer = unet_optimizer(denoiser.weights, params)

    def embedding_steps(draws) -> None:
        optimise_text_embedding(denoiser, photos, draws, params.embedding_lr)

    def finetune_steps(draws) -> None:
        finetune_stable_diffusion(denoiser, optimizer, photos, draws)

    timings = []
    for steps_of_stage in (embedding_steps, finetune_steps):
        started = time.perf_counter()
        steps_of_stage(draws[:1] * (3 if params.compile else 1))  # warm up: compile, then record CUDA graphs
        synchronize(device)
        start, tflop = time.perf_counter() - started, 0.0
        if not params.compile:
            counter = FlopCounterMode(display=False)
            with counter:
                steps_of_stage(draws[:1])
            tflop = counter.get_total_flops() / 1e12
        synchronize(device)
        reset_peak_memory()
        started = time.perf_counter()
        steps_of_stage(draws)
        synchronize(device)
        seconds, peaks = (time.perf_counter() - started) / steps, peak_memory()
        timings.append(Timing(seconds, tflop, peaks.get("gpu", peaks["process"]), start))
    return timings


def seconds_of_photo(timings: list[Timing], params: Hyperparameters) -> float:
    """Of the interleaved schedule, whose batch is one photo."""
    embedding, finetune = timings
    return params.embedding_steps * embedding.seconds + params.finetune_steps * finetune.seconds


def build_unet(size: str, device):
    """The UNet with random weights, made on the device, and how many pixels one latent is."""
    from diffusers import UNet2DConditionModel

    from synthetic_hands.tiny_model import tiny_stable_diffusion

    if size == "tiny":
        return tiny_stable_diffusion().unet.to(device), 4
    with device:
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8), 8


def synchronize(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
