"""How good is the miniature Stable Diffusion? Hands and captions: drawn, after its autoencoder, and in its pictures.

Every model draws the same captions from the same start noises. "Hand found" and HAND-CONF are MediaPipe's; an attribute
is what a caption names: colours of skin, sleeve and wall, and the wall's pattern.

Examples:
  python -m benchmarks.mini --samples 144
  python -m benchmarks.mini --model results/before/model synthetic_hands/mini/model --sheet mini.png
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.hands.detection import find_hands
from core.metrics.intervals import hand_confidence_interval, share_interval
from core.runs.command_line import argument_parser, command_line, ddim_steps, finite_float, positive_int
from core.runs.files import check_outputs
from core.runs.processes import progress
from core.runs.sheets import contact_sheet, save_png
from synthetic_hands.demo import MINI

COLUMNS = 12  # of the sheet


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", type=Path, nargs="+", default=[MINI / "model"], help="diffusers folders")
    parser.add_argument("--samples", type=positive_int, default=144, help="pictures of each kind")
    parser.add_argument("--guidance_scale", type=finite_float, default=3.0, help="how much the text counts")
    parser.add_argument("--num_inference_steps", type=ddim_steps, default=20, help="DDIM steps of a picture")
    parser.add_argument("--sheet", type=Path, help="PNG: drawn hands above each model's for the same captions")
    args = parser.parse_args(argv)
    if args.sheet:
        check_outputs(args.sheet)

    import torch

    from core.diffusion.encoding import encode_texts
    from core.diffusion.noise import ddim_scheduler
    from core.diffusion.sampling import decode, start_noise
    from core.diffusion.stable_diffusion import load_stable_diffusion
    from core.metrics.texts import attribute_hits, load_attribute_classifier
    from hand1000.generation import sample
    from synthetic_hands.hand import POSES
    from synthetic_hands.sample import draw_sample

    classifier = load_attribute_classifier(MINI / "attributes.pt")
    gestures = sorted(POSES)
    samples = [draw_sample(gestures[number % 18], [1, number], size=64) for number in range(args.samples)]
    captions = [one.caption for one in samples]

    def row(name: str, pictures: Sequence[Image.Image]) -> str:
        hands = [find_hands(picture) for picture in progress(pictures, desc="Hands", unit="picture")]
        found = [bool(one) for one in hands]
        low, high = share_interval(found)
        scores, confidence = [[hand.score for hand in one] for one in hands], "–"
        if any(scores):
            bounds = hand_confidence_interval(scores, resamples=1000)
            confidence = f"{np.mean(sum(scores, [])):.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"
        hits = attribute_hits(classifier, map(np.asarray, pictures), captions)
        shares = [f"{share:.0%}" for share in (*np.nanmean(hits, axis=0), np.nanmean(hits))]
        return f"| {name} | {np.mean(found):.0%} [{low:.0%}, {high:.0%}] | {confidence} | {' | '.join(shares)} |"

    drawn = [Image.fromarray(one.rgb) for one in samples]
    pixels = torch.from_numpy(np.stack([one.rgb for one in samples])).permute(0, 3, 1, 2) / 127.5 - 1
    kinds, shown = {"drawn": drawn}, [drawn]
    for model in args.model:
        pipe = load_stable_diffusion(str(model))
        with torch.inference_mode():
            latents = torch.cat([pipe.vae.encode(batch).latent_dist.mean for batch in pixels.split(32)])
        kinds[f"drawn, after the autoencoder of {model}"] = decode(pipe.vae, latents * pipe.vae.config.scaling_factor)
        embeds = encode_texts(pipe, [*captions, ""], "cpu")
        pictures: list[Image.Image] = []
        for start in progress(range(0, args.samples, 32), desc=f"{model}", unit="batch"):
            numbers = range(start, min(start + 32, args.samples))
            made = sample(
                pipe.unet,
                ddim_scheduler(pipe),
                torch.cat([start_noise(number, (1, *latents.shape[1:])) for number in numbers]),
                embeds[list(numbers)],
                embeds[-1:],
                guidance_scale=args.guidance_scale,
                num_inference_steps=args.num_inference_steps,
            )
            pictures += decode(pipe.vae, made)
        kinds[f"by {model}"] = pictures
        shown.append(pictures)
    rows = [row(name, pictures) for name, pictures in kinds.items()]
    print(f"| pictures | hand found | HAND-CONF | {' | '.join(classifier.phrases)} | attributes |")
    print("| --- " * (4 + len(classifier.phrases)) + "|")
    print(*rows, sep="\n")
    if args.sheet:
        blocks = [one[start : start + COLUMNS] for start in range(0, min(48, args.samples), COLUMNS) for one in shown]
        save_png(contact_sheet(blocks, cell=96), args.sheet)


if __name__ == "__main__":
    main()
