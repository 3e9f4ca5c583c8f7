"""Train a small feature extractor for FID and KID on synthetic hands: it learns to tell gesture, skin, sleeve and wall.

It is used instead of Inception where that cannot be downloaded. Its distances are of another scale than Inception's:
compare them with each other only. The shipped one, synthetic_hands/mini/features.pt, was made by the example from the
data of train_mini.

Example:
  python -m synthetic_hands.train_features --data results/mini/data.npz --output synthetic_hands/mini/features.pt
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, check_outputs, sha256_of_files
from core.runs.processes import progress, say
from core.runs.run import Run

SIZE, FEATURES = 64, 128  # pixels per side of what it sees; numbers for each picture
BATCH_SIZE, LEARNING_RATE = 64, 2e-3


class HandFeatures(nn.Module):
    """uint8 (N, 3, H, W) of any size -> float32 (N, 128), mean square 1 over the training pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.size = SIZE
        channels, layers = (3, 24, 48, 96, 128), []
        for inputs, outputs in zip(channels, channels[1:]):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(128, FEATURES, 3, padding=1), nn.ReLU())
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures.float() / 127.5 - 1
        x = nn.functional.interpolate(x, size=[self.size, self.size], mode="bilinear", antialias=True)
        return self.layers(x).mean(dim=(2, 3)) * self.scale


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data.npz of synthetic_hands.train_mini")
    parser.add_argument("--output", type=Path, required=True, help="TorchScript file to write")
    parser.add_argument("--steps", type=positive_int, default=3000, help=f"training steps of {BATCH_SIZE} pictures")
    parser.add_argument("--seed", type=seed_int, default=0, help="of weights, order and crops")
    args = parser.parse_args(argv)
    if not args.data.is_file():
        raise UserError(f"{args.data}: no such file; python -m synthetic_hands.train_mini draws it")
    check_outputs(args.output)
    settings = {"data": sha256_of_files([args.data]), "steps": args.steps, "seed": args.seed}
    record = args.output.with_suffix(".json")
    run = Run(record, settings, what="training", owns_folder=False, flag="--output")
    with run.hold():
        if run.is_finished() and args.output.is_file():
            say(f"{args.output}: already finished")
            return
        run.begin()
        write_extractor(args.data, args.output, args.steps, args.seed)
        run.finish()


def write_extractor(data: Path, output: Path, steps: int, seed: int) -> None:
    """Train the extractor, print how much of the pictures' properties it tells, and write it as TorchScript."""
    with np.load(data) as file:
        pictures, gestures, captions = (file[name] for name in ("pictures", "gestures", "captions"))
    labels = {"gesture": gestures, **properties_of(captions)}
    classes = {name: sorted(set(values)) for name, values in labels.items()}
    targets = {name: np.array([classes[name].index(v) for v in values]) for name, values in labels.items()}
    held_out = len(pictures) // 10

    model, heads = train(pictures[held_out:], {n: t[held_out:] for n, t in targets.items()}, steps, seed)
    features = torch.cat([model(batch) for batch in as_tensor(pictures).split(256)])
    for name, head in heads.items():
        right = head(features[:held_out]).argmax(dim=1).numpy() == targets[name][:held_out]
        say(f"{name}: {right.mean():.1%} of {held_out} held-out pictures right, {len(classes[name])} classes")
    model.scale /= features.square().mean().sqrt()
    with atomic_file(output) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, yet the one format that opens without its class
        torch.jit.script(model).save(str(temporary))
    say(f"{output}: {FEATURES} features, {output.stat().st_size / 1e6:.1f} MB")


def properties_of(captions: np.ndarray) -> dict[str, list[str]]:
    """Skin, sleeve and wall from captions "a brown hand with a red sleeve in front of a striped blue wall"."""
    words = [caption.split() for caption in captions]
    return {"skin": [w[1] for w in words], "sleeve": [w[5] for w in words], "wall": [w[-2] for w in words]}


def train(pictures: np.ndarray, targets: dict[str, np.ndarray], steps: int, seed: int):
    """The extractor and a linear classifier on it for each property, with random crops, as the metrics crop hands."""
    torch.manual_seed(seed)
    model = HandFeatures()
    heads = nn.ModuleDict({name: nn.Linear(FEATURES, int(target.max()) + 1) for name, target in targets.items()})
    optimiser = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    rng = np.random.default_rng(seed)
    for step in progress(range(steps), desc="Features", unit="step"):
        rows = rng.integers(len(pictures), size=BATCH_SIZE)
        batch = as_tensor(pictures[rows])
        if step % 2:
            left, top = rng.integers(0, 12, size=2)
            right, bottom = rng.integers(52, 65, size=2)
            batch = batch[:, :, top:bottom, left:right]
        features = model(batch)
        loss = sum(
            nn.functional.cross_entropy(head(features), torch.from_numpy(targets[name][rows]))
            for name, head in heads.items()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(False), heads.eval().requires_grad_(False)


def as_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


if __name__ == "__main__":
    main()
