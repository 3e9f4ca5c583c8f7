"""How fast AttentionHand draws: one picture at a time, in batches, and diffusers' own pipeline, on the same weights.

Every way draws the same labels, texts and start noise, after a warm-up, in turns; printed is the median of the turns,
and how far the pictures are from those of one at a time (of 255).

Example:
  python -m benchmarks.attentionhand_inference --num 32 --batch_size 16 --turns 3
"""

import statistics
import time
from pathlib import Path

import numpy as np

from core.diffusion.options import add_model_options
from core.runs.command_line import argument_parser, command_line, positive_int
from synthetic_hands.demo import MINI

STEPS, GUIDANCE = 20, 9.0


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add_model_options(parser, str(MINI / "model"))
    parser.add_argument("--weights", type=Path, help="run folder of attentionhand.train (default: untrained weights)")
    parser.add_argument("--resolution", type=positive_int, default=64, help="pixels per side")
    parser.add_argument("--num", type=positive_int, default=32, help="pictures of each turn")
    parser.add_argument(
        "--batch_size", type=positive_int, default=16, help="pictures at a time, where there are several"
    )
    parser.add_argument("--turns", type=positive_int, default=3, help="times that every way is measured")
    args = parser.parse_args(argv)

    import torch
    from diffusers import StableDiffusionControlNetPipeline

    from attentionhand.sampling import draw
    from attentionhand.visual_attention import control, controlled_noise, new_stage
    from attentionhand.weights import load_stage
    from core.diffusion.encoding import encode_texts, latent_shape
    from core.diffusion.noise import ddim_scheduler
    from core.diffusion.sampling import ddim, decode, guided, start_noise
    from core.diffusion.stable_diffusion import load_stable_diffusion
    from synthetic_hands.hand import POSES
    from synthetic_hands.sample import draw_sample

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def models(memory_format: torch.memory_format):
        """Models that only one way uses, for the layout of weights in memory is theirs."""
        pipe = load_stable_diffusion(
            args.pretrained_model_name_or_path, original_config=args.original_config, config=args.config
        )
        stage = load_stage(args.weights, pipe) if args.weights else new_stage(pipe.unet, pipe.vae)
        stage.eval().requires_grad_(False)
        for model in (pipe.unet, pipe.vae, stage):
            model.to(device, memory_format=memory_format)
        return pipe, stage

    plain, ours = models(torch.contiguous_format), models(torch.channels_last)
    gestures = sorted(POSES)
    drawn = [draw_sample(gestures[n % len(gestures)], [2, n], size=args.resolution) for n in range(args.num)]
    meshes = torch.from_numpy(np.stack([one.mesh for one in drawn])).permute(0, 3, 1, 2).float() / 255
    texts, shape = [one.caption for one in drawn], latent_shape(plain[0], args.resolution)
    noise = torch.cat([start_noise(number, shape) for number in range(args.num)])

    @torch.no_grad()
    def one_at_a_time() -> list:
        """As this code did it before it drew in batches: the mesh image is encoded in every step, too."""
        pipe, stage = plain
        pictures, blank = [], encode_texts(pipe, [""], device, desc=None)
        for number in range(args.num):
            embeds = torch.cat([blank, encode_texts(pipe, [texts[number]], device, desc=None)]).to(device)
            mesh = meshes[number : number + 1].repeat(2, 1, 1, 1).to(device)

            def denoise(latents, timestep, embeds=embeds, mesh=mesh):
                twice = torch.cat([latents] * 2)
                residuals = control(stage, twice, timestep, embeds, mesh)
                return guided(controlled_noise(pipe.unet, twice, timestep, embeds, residuals), GUIDANCE)

            start = noise[number : number + 1].to(device)
            pictures += decode(pipe.vae, ddim(denoise, ddim_scheduler(pipe), start, num_inference_steps=STEPS))
        return pictures

    def batches():
        for start in range(0, args.num, args.batch_size):
            yield slice(start, start + args.batch_size)

    def in_batches() -> list:
        pipe, stage = ours
        pictures, blank = [], encode_texts(pipe, [""], device, desc=None)
        for part in batches():
            embeds = encode_texts(pipe, texts[part], device, desc=None)
            batch = meshes[part], noise[part]
            pictures += draw(pipe, stage, embeds, blank, *batch, num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        return pictures

    pipe, stage = plain
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    theirs = StableDiffusionControlNetPipeline(
        **parts,
        controlnet=stage,
        scheduler=ddim_scheduler(pipe),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)

    def pipeline() -> list:
        theirs.text_encoder.to(device)
        pictures = []
        for part in batches():
            made = theirs(
                texts[part],
                meshes[part],
                latents=noise[part].to(device),
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
            )
            pictures += made.images
        return pictures

    ways = {
        "one at a time": one_at_a_time,
        f"here, batches of {args.batch_size}": in_batches,
        f"diffusers' pipeline, batches of {args.batch_size}": pipeline,
    }
    made = {name: way() for name, way in ways.items()}  # and a warm-up
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.turns):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - started)
    threads = torch.get_num_threads()
    print(f"{args.num} pictures of {args.resolution} pixels, {STEPS} steps, {device.type}, {threads} threads")
    print("| way | pictures a second | times one at a time | largest difference |\n| --- | --- | --- | --- |")
    first = np.stack(made["one at a time"]).astype(int)
    speeds = {name: args.num / statistics.median(seconds) for name, seconds in taken.items()}
    for name, speed in speeds.items():
        difference = np.abs(np.stack(made[name]).astype(int) - first).max()
        print(f"| {name} | {speed:.2f} | {speed / speeds['one at a time']:.2f} | {difference} |")


if __name__ == "__main__":
    main()
