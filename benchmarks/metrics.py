"""Speed of the metrics, side by side in one run: features, hand detection, and FID's distance.

The pictures are drawn hands; Inception v3 has random weights, which take as long as trained ones. "In memory" reads all
pictures first, then takes them one by one in one process, as the released code does.

Example:
  python -m benchmarks.metrics --images 96
"""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.hands.detection import find_hands
from core.runs.command_line import argument_parser, command_line, positive_int
from core.runs.photos import list_photos, load_photo, map_photos
from core.runs.processes import cpu_count


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=positive_int, default=96, help="pictures to draw")
    parser.add_argument("--size", type=positive_int, default=512, help="their width and height in pixels")
    args = parser.parse_args(argv)

    from synthetic_hands.drawn import draw_open_hand

    print(f"{cpu_count()} cores, {args.images} pictures of {args.size}x{args.size}")
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for number in range(args.images):
            draw_open_hand(rng)[0].resize((args.size, args.size)).save(Path(folder) / f"{number:04}.jpg", quality=95)
        photos = list_photos(Path(folder))
        print("\n| features | images a second |\n| --- | --- |", flush=True)
        time_features(photos, Path(folder))
        print(f"\n| detection in {4 * len(photos)} | confidence | images a second |\n| --- | --- | --- |", flush=True)
        time_hands(4 * photos)
    print(
        "\n| distance of 2,048 features | pictures a side | seconds | distance |\n| --- | --- | --- | --- |", flush=True
    )
    time_distance()


def time_features(photos: list[Path], folder: Path) -> None:
    """Feature extraction of the released protocol, from memory and streamed by worker processes."""
    import torch
    from torchvision import transforms
    from torchvision.models import inception_v3

    from core.metrics.extractors import load_inception
    from core.metrics.features import extract

    weights = folder / "inception.pth"
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = load_inception("released", weights, device)
    prepare = transforms.Compose([transforms.Resize(299), transforms.CenterCrop(299), transforms.PILToTensor()])

    def in_memory() -> None:
        pictures = [prepare(load_photo(path)) for path in photos]
        with torch.inference_mode():
            for start in range(0, len(pictures), 50):
                extractor(torch.stack(pictures[start : start + 50]).to(device)).cpu()

    def streamed(num_workers: int) -> None:
        extract(photos, extractor, protocol="released", crop="whole", batch_size=32, num_workers=num_workers)

    in_memory()  # warm up
    for name, function in [
        ("in memory", in_memory),
        ("1 process", lambda: streamed(1)),
        (f"{cpu_count()} worker processes", lambda: streamed(cpu_count())),
    ]:
        print(f"| Inception v3 on {device.type}, {name} | {len(photos) / seconds(function):.1f} |", flush=True)


def time_hands(photos: list[Path]) -> None:
    """Detection of at most 2 hands, at FID-H's confidence and at HAND-CONF's."""

    def in_memory(confidence: float) -> None:
        for picture in [load_photo(path) for path in photos]:
            find_hands(picture, max_num_hands=2, min_detection_confidence=confidence)

    def by_workers(confidence: float, num_workers: int) -> None:
        function = functools.partial(find_hands, max_num_hands=2, min_detection_confidence=confidence)
        list(map_photos(function, photos, num_workers=num_workers))

    for confidence in (0.5, 0.0):
        in_memory(confidence)  # warm up
        ways = {
            "in memory, one by one": functools.partial(in_memory, confidence),
            "1 worker": functools.partial(by_workers, confidence, 1),
            f"{cpu_count()} workers, their start included": functools.partial(by_workers, confidence, cpu_count()),
        }
        for name, way in ways.items():
            spent = seconds(way)
            print(f"| {name} | {confidence} | {len(photos) / spent:.1f} |", flush=True)


def time_distance() -> None:
    """FID from features: `frechet_distance` against the released general matrix root."""
    import scipy.linalg

    from core.metrics import fid

    def as_released(real: np.ndarray, fake: np.ndarray) -> float:
        sigma_1, sigma_2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
        root = scipy.linalg.sqrtm(sigma_1 @ sigma_2)
        return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(sigma_1 + sigma_2 - 2 * root).real

    rng = np.random.default_rng(0)
    scales = np.exp(-np.arange(2048) / 300)  # a few strong directions, as in real features
    mix = np.linalg.qr(rng.normal(size=(2048, 2048)))[0]
    for rows in (1000, 5000):
        real, fake = (rng.normal(size=(rows, 2048)) * scales @ mix + shift for shift in (0, 0.01))
        for name, function in [("eigenvalues", fid), ("matrix root, as released", as_released)]:
            started = time.perf_counter()
            value = function(real, fake)
            print(f"| {name} | {rows:,} | {time.perf_counter() - started:.2f} | {value:.6f} |", flush=True)


def seconds(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
