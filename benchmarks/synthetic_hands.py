"""Does MediaPipe find the synthetic hands? The share it finds of each gesture, and how far its landmarks are off.

Example:
  python -m benchmarks.synthetic_hands --size 64 --samples 20
"""

import numpy as np

from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.processes import cpu_count, progress, worker_pool


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--size", type=positive_int, default=64, help="pixels per side")
    parser.add_argument("--samples", type=positive_int, default=20, help="pictures of each gesture")
    args = parser.parse_args(argv)

    from synthetic_hands.hand import POSES

    jobs = [(gesture, seed, args.size) for gesture in POSES for seed in range(args.samples)]
    with worker_pool(cpu_count()) as pool:
        errors = list(progress(pool.map(landmark_error, *zip(*jobs)), total=len(jobs)))

    print("| gesture | hand found | median distance of landmarks, share of the hand's size |\n| --- | --- | --- |")
    for gesture in [*POSES, "all"]:
        of = [error for (name, *_), error in zip(jobs, errors) if gesture in (name, "all")]
        found = [error for error in of if error is not None]
        median = f"{np.median(found):.1%}" if found else "-"
        print(f"| {gesture} | {len(found) / len(of):.0%} of {len(of)} | {median} |")


def landmark_error(gesture: str, seed: int, size: int) -> float | None:
    """Mean distance of MediaPipe's landmarks from the true joints as a share of the hand's size; None if not found."""
    import torch
    from PIL import Image

    from core.hands.detection import find_hands
    from synthetic_hands.sample import draw_sample

    torch.set_num_threads(1)
    sample = draw_sample(gesture, seed, size=size)
    hands = find_hands(Image.fromarray(sample.rgb))
    if not hands:
        return None
    hand_size = np.ptp(sample.joints_2d, axis=0).max()
    distances = np.linalg.norm(hands[0].landmarks[:, :2] * size - sample.joints_2d, axis=1)
    return float(distances.mean() / hand_size)


if __name__ == "__main__":
    main()
