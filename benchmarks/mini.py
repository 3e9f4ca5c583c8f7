"""How good is the miniature Stable Diffusion? Hands that survive its autoencoder, and hands in its own pictures.

Example:
  python -m benchmarks.mini --samples 128
"""

from pathlib import Path

import numpy as np

from core.hands.detection import find_hands
from core.metrics.intervals import share_interval
from core.runs.command_line import argument_parser, command_line, positive_int
from synthetic_hands.demo import MINI


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MINI / "model", help="diffusers folder")
    parser.add_argument("--samples", type=positive_int, default=144, help="pictures of each kind")
    args = parser.parse_args(argv)

    import torch
    from PIL import Image

    from core.diffusion.encoding import encode_texts
    from core.diffusion.noise import ddim_scheduler
    from core.diffusion.sampling import decode, start_noise
    from core.diffusion.stable_diffusion import load_stable_diffusion
    from hand1000.generation import sample
    from synthetic_hands.hand import POSES
    from synthetic_hands.sample import draw_sample

    def found(pictures) -> np.ndarray:
        return np.array([bool(find_hands(picture)) for picture in pictures])

    pipe = load_stable_diffusion(str(args.model))
    gestures = sorted(POSES)
    drawn = [draw_sample(gestures[number % 18], [1, number], size=64) for number in range(args.samples)]
    pixels = torch.from_numpy(np.stack([one.rgb for one in drawn])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = torch.cat([pipe.vae.encode(batch).latent_dist.mean for batch in pixels.split(32)])
    before = found([Image.fromarray(one.rgb) for one in drawn])
    after = found(decode(pipe.vae, latents * pipe.vae.config.scaling_factor))
    embeds = encode_texts(pipe, [*(one.caption for one in drawn), ""], "cpu")
    pictures = []
    for start in range(0, args.samples, 32):
        numbers = range(start, min(start + 32, args.samples))
        noise = torch.cat([start_noise(number, (1, *latents.shape[1:])) for number in numbers])
        made = sample(
            pipe.unet,
            ddim_scheduler(pipe),
            noise,
            embeds[list(numbers)],
            embeds[-1:],
            guidance_scale=3.0,
            num_inference_steps=20,
        )
        pictures += decode(pipe.vae, made)
    print("| pictures | with a hand for MediaPipe | 95 % interval |\n| --- | --- | --- |")
    rows = {"rendered": before, "rendered, after the autoencoder": after, "drawn by the model": found(pictures)}
    for name, hits in rows.items():
        low, high = share_interval(hits)
        print(f"| {name} | {hits.mean():.0%} of {len(hits)} | {low:.0%} to {high:.0%} |")
    print(
        f"\nof the hands found before the autoencoder, {(before & after).sum() / before.sum():.0%} are found after it"
    )


if __name__ == "__main__":
    main()
