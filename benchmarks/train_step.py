"""Seconds and peak memory of one Stage II and one Stage III step, as train.py takes them, with random weights.

A photo costs 10 steps of Stage II and 20 of Stage III. TFLOP a step are counted by torch; Stage II is about two UNet
forwards (the backward pass goes to the embedding only), Stage III about three.

Examples:
  python -m benchmarks.train_step --size tiny
  python -m benchmarks.train_step --size sd14 --resolution 512 --steps 2 --gradient_checkpointing
  python -m benchmarks.train_step --size sd14 --mixed_precision bf16 --compile
"""

import resource
import sys
import time

from core.diffusion.options import PRECISIONS
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.processes import start_accelerator


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--size", choices=("tiny", "sd14"), default="tiny", help="the demo's UNet, or Stable Diffusion 1.4's 860 M")
    add("--resolution", type=positive_int, default=512, help="pixels per side; latents are an eighth (tiny: a quarter)")
    add("--train_batch_size", type=positive_int, default=1, help="photos per step")
    add("--steps", type=positive_int, default=5, help="steps to time, after one to warm up")
    add("--mixed_precision", choices=PRECISIONS, default="no", help="precision of the UNet's arithmetic")
    add("--gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--use_8bit_adam", action="store_true", help="bitsandbytes' 8-bit Adam in Stage III")
    add("--compile", action="store_true", help="torch.compile the UNet")
    args = parser.parse_args(argv)

    import torch
    from diffusers import DDPMScheduler
    from torch.utils.flop_counter import FlopCounterMode

    from hand1000.draws import Draw
    from hand1000.hyperparameters import Hyperparameters
    from hand1000.schedules import compiled, first_state, gradient_scaler, unet_optimizer
    from hand1000.stages import Denoiser, Photos, finetune_stable_diffusion, optimise_text_embedding

    params = Hyperparameters(use_8bit_adam=args.use_8bit_adam, compile=args.compile)
    accelerator = start_accelerator(mixed_precision=args.mixed_precision)
    device = accelerator.device
    unet, factor = build_unet(args.size)
    unet.to(device).train()
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scaler = gradient_scaler(accelerator, first_state(params))
    denoiser = Denoiser(compiled(unet, params), noise_scheduler, accelerator, scaler)

    side, batch = args.resolution // factor, args.train_batch_size
    latents = torch.randn(batch, 4, side, side)
    prompt_embeds = torch.randn(batch, 77, unet.config.cross_attention_dim, device=device)
    photos = Photos(["a photo"] * batch, latents, prompt_embeds)
    draws = [Draw(torch.randn_like(latents), torch.randint(1000, (batch,))) for _ in range(args.steps)]

    def embedding_steps(draws) -> None:
        optimise_text_embedding(denoiser, photos, draws, params.embedding_lr)

    def finetune_steps(draws) -> None:
        finetune_stable_diffusion(denoiser, unet_optimizer(unet, params), photos, draws)

    weights = sum(parameter.numel() for parameter in unet.parameters())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.size}: {weights / 1e6:.1f} M weights on {name}, precision {args.mixed_precision}")
    print(f"{side} x {side} latents, batch {batch}")
    print("| stage | seconds a step | TFLOP a step | TFLOP/s | peak memory |\n| --- | --- | --- | --- | --- |")
    seconds = {}
    for stage, steps in (("II (embedding)", embedding_steps), ("III (UNet)", finetune_steps)):
        steps(draws[:1])  # warm up, and compile
        counter = FlopCounterMode(display=False)
        if not args.compile:
            with counter:
                steps(draws[:1])
        synchronize(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        steps(draws)
        synchronize(device)
        seconds[stage] = (time.perf_counter() - started) / args.steps
        tflop = counter.get_total_flops() / 1e12
        speed = (f"{tflop:.3f}", f"{tflop / seconds[stage]:.2f}") if tflop else ("-", "-")
        print(
            f"| {stage} | {seconds[stage]:.3f} | {' | '.join(speed)} | {peak_bytes(device) / 1e9:.1f} GB |", flush=True
        )
    embedding, finetune = seconds.values()
    photo = params.embedding_steps * embedding + params.finetune_steps * finetune
    print(f"One photo of the interleaved schedule: {photo:.1f} s, {60 / photo:.2f} photos a minute")


def build_unet(size: str):
    """The UNet with random weights, and how many pixels one latent is."""
    from diffusers import UNet2DConditionModel

    from synthetic_hands.tiny_model import tiny_stable_diffusion

    if size == "tiny":
        return tiny_stable_diffusion().unet, 4
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8), 8


def synchronize(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device) -> int:
    """Peak memory of the device; on the CPU that of the whole process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
