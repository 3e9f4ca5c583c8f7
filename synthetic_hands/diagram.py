"""The picture of both methods at the top of the README.

Example:
  python -m synthetic_hands.diagram --output imgs/methods.png
"""

from pathlib import Path

from core.runs.command_line import argument_parser, command_line
from core.runs.files import atomic_file
from core.runs.processes import say

DATA, FROZEN, TRAINED = "#f2f2f2", "#d6e6f5", "#fbdcb5"  # what a box holds: data, a fixed computation, what is learnt
FRAME_HEIGHT = 1.0


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("imgs/methods.png"), help="picture to write")
    args = parser.parse_args(argv)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from synthetic_hands.sample import draw_sample

    given, drawn, palm = (draw_sample(name, seed, size=256) for name, seed in (("call", 4), ("call", 8), ("palm", 5)))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(13, 8))
    for axes, title in (
        (top, "Hand1000: one gesture from 1,000 photos"),
        (bottom, "AttentionHand: a hand mesh and a text"),
    ):
        axes.set(xlim=(0, 13), ylim=(0.1, 4), aspect="equal")
        axes.axis("off")
        axes.text(0.1, 3.8, title, fontsize=14, fontweight="bold", va="center")
    hand1000(top, given, drawn)
    attentionhand(bottom, palm)
    legend(top)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995, hspace=0.02)
    with atomic_file(args.output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    say(f"{args.output}: written")


def hand1000(axes, given, drawn) -> None:
    picture(axes, 0.9, 2.55, given.rgb, "photos of a gesture")
    box(axes, 0.9, 0.75, "captions, each with\nthe gesture's phrase", DATA)
    box(axes, 3.3, 2.55, "MediaPipe:\nmean of 63\nlandmark numbers", FROZEN)
    box(axes, 3.3, 0.75, "CLIP text\nencoder", FROZEN)
    box(axes, 5.7, 1.65, "fusion\nΛ·text + (1−Λ)·fused", FROZEN)
    box(axes, 8.1, 2.55, "Stage II:\noptimise the embedding\n(UNet frozen)", TRAINED)
    box(axes, 8.1, 0.75, "Stage III:\nfine-tune the UNet\n(embedding fixed)", TRAINED)
    box(axes, 10.4, 1.65, "generate:\nμ·text + (1−μ)·fused", FROZEN)
    picture(axes, 12.3, 1.65, drawn.rgb, "the right hand")
    for start, end in (
        ((1.4, 2.55), (2.4, 2.55)),
        ((1.8, 0.75), (2.4, 0.75)),
        ((4.2, 2.4), (4.9, 1.95)),
        ((4.2, 0.9), (4.9, 1.35)),
        ((6.5, 1.95), (7.15, 2.4)),
        ((8.1, 2.1), (8.1, 1.2)),
        ((9.05, 0.9), (9.7, 1.35)),
        ((11.3, 1.65), (11.75, 1.65)),
    ):
        arrow(axes, start, end)
    axes.text(3.3, 3.2, "Stage I", ha="center", fontsize=10, style="italic")


def attentionhand(axes, palm) -> None:
    left, above, right, below = palm.box
    picture(axes, 0.9, 2.55, palm.mesh, "mesh: global view")
    picture(axes, 2.5, 2.55, palm.mesh[int(above) : int(below), int(left) : int(right)], "local view")
    box(axes, 1.4, 0.75, "text with hand words\nand -ing verbs", DATA)
    box(axes, 5.0, 2.55, "visual attention stage:\na ControlNet on\nthe mesh", TRAINED)
    box(axes, 5.0, 0.75, "text attention stage:\n50 gradient steps raise the\nhand words' attention", FROZEN)
    box(axes, 8.4, 1.65, "UNet of\nStable Diffusion\n(frozen)", FROZEN)
    picture(axes, 11.2, 1.65, palm.rgb, "a hand that fits the mesh,\nin a scene that fits the text")
    for start, end in (
        ((3.05, 2.55), (3.95, 2.55)),
        ((2.35, 0.75), (3.75, 0.75)),
        ((6.05, 2.4), (7.5, 1.9)),
        ((6.25, 0.9), (7.5, 1.4)),
        ((9.3, 1.65), (10.6, 1.65)),
    ):
        arrow(axes, start, end)
    axes.text(6.95, 2.4, "residuals", fontsize=9, ha="center")
    axes.text(6.95, 0.85, "noisy latents\n(in training)", fontsize=9, ha="center", va="top")


def box(axes, x: float, y: float, text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "#555555"}
    axes.text(x, y, text, ha="center", va="center", fontsize=10, bbox=style)


def picture(axes, x: float, y: float, pixels, caption: str) -> None:
    """A picture, `FRAME_HEIGHT` high, with its caption below."""
    half_height, half_width = FRAME_HEIGHT / 2, FRAME_HEIGHT / 2 * pixels.shape[1] / pixels.shape[0]
    axes.imshow(pixels, extent=(x - half_width, x + half_width, y - half_height, y + half_height))
    axes.text(x, y - half_height - 0.08, caption, ha="center", va="top", fontsize=10)


def arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.4})


def legend(axes) -> None:
    for x, (text, colour) in zip((8.3, 9.1, 9.95), (("data", DATA), ("fixed", FROZEN), ("learnt", TRAINED))):
        box(axes, x, 3.75, text, colour)


if __name__ == "__main__":
    main()
