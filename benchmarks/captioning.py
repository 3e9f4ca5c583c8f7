"""Captions a second: photos one at a time, as the released code takes them, against batches. ViT-GPT2, random weights.

Example:
  python -m benchmarks.captioning --full_size
"""

import tempfile
import time
from pathlib import Path

from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.processes import cpu_count


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=32, help="pictures to caption")
    parser.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[1, 8, 32], help="pictures at a time")
    parser.add_argument("--full_size", action="store_true", help="the published model's size, not a tiny one")
    args = parser.parse_args(argv)

    import numpy as np
    import torch

    from captioning import vitgpt2
    from synthetic_hands.drawn import draw_open_hand
    from synthetic_hands.tiny_captioners import save_vitgpt2

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    photos = [draw_open_hand(rng)[0] for _ in range(args.images)]
    with tempfile.TemporaryDirectory() as folder:
        caption = vitgpt2.load(str(save_vitgpt2(Path(folder) / "model", full_size=args.full_size)), device)
    caption(photos[:1])  # warm up
    print(f"{device.type}, {cpu_count()} cores\n| photos at a time | captions a second |\n| --- | --- |")
    for batch_size in args.batch_sizes:
        started = time.perf_counter()
        for start in range(0, len(photos), batch_size):
            caption(photos[start : start + batch_size])
        print(f"| {batch_size} | {len(photos) / (time.perf_counter() - started):.2f} |", flush=True)


if __name__ == "__main__":
    main()
