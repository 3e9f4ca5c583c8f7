"""Train the classifier that finds a caption's attributes in a picture of the miniature: skin, sleeve, wall and pattern.

Linear classifiers on the miniature's own features, and for the pattern, which those do not tell, a small network of its
own. The pictures are drawn for it; every tenth is held out, and the share that is told right is printed. The result is
the --attribute_classifier of reproduce.py.

Example:
  python -m synthetic_hands.train_attributes --output_dir results/attributes
  cp results/attributes/attributes.pt synthetic_hands/mini/
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from core.metrics.extractors import load_torchscript
from core.metrics.texts import PHRASES_FILE, attributes_of
from core.runs.command_line import argument_parser, command_line, plain_arguments, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_file, sha256_of_files
from core.runs.processes import progress, say
from core.runs.run import Run
from synthetic_hands.hand import POSES
from synthetic_hands.sample import SKINS, SLEEVES, TEXTURES, WALLS
from synthetic_hands.train_features import FEATURES, as_tensor
from synthetic_hands.train_mini import training_data

EXTRACTOR = Path(__file__).parent / "mini" / "features.pt"
PHRASES = {
    "skin": [f"{skin} hand" for skin in SKINS],
    "sleeve": [f"{sleeve} sleeve" for sleeve in SLEEVES],
    "wall": [f"{wall} wall" for wall in WALLS],
    "pattern": ["" if texture == "plain" else texture for texture in TEXTURES],
}
SIZES = [len(classes) for classes in PHRASES.values()]
COLOURS = sum(SIZES[:-1])  # classes of all attributes but the pattern
STEPS, LEARNING_RATE = 2000, 1e-2  # of the linear classifiers
EPOCHS, BATCH_SIZE, PATTERN_RATE = 30, 32, 3e-3  # of the pattern's network
FEWEST = 36  # pictures: nine tenths of them make a batch


class Attributes(nn.Module):
    """uint8 (N, 3, H, W) -> (N, K): one number for each class of each attribute."""

    def __init__(self, extractor: nn.Module, features: Tensor) -> None:
        super().__init__()
        self.extractor = extractor
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("deviation", features.std(dim=0) + 1e-6)
        self.colours = nn.Linear(FEATURES, COLOURS)
        self.texture = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU()),
        )
        self.pattern = nn.Linear(48, SIZES[-1])

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.of_features(self.extractor(pictures)), self.of_texture(pictures)], dim=1)

    def of_features(self, features: Tensor) -> Tensor:
        return self.colours((features - self.mean) / self.deviation)

    def of_texture(self, pictures: Tensor) -> Tensor:
        x = pictures.float() / 127.5 - 1
        x = nn.functional.interpolate(x, size=[64, 64], mode="bilinear", antialias=True)
        return self.pattern(self.texture(x).mean(dim=(2, 3)))


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of attributes.pt and its data")
    parser.add_argument("--num", type=positive_int, default=150, help="pictures of each of the 18 gestures")
    parser.add_argument("--seed", type=seed_int, default=1, help="of the pictures; the miniature saw those of 0 and 1")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)  # of the networks' first weights
    if args.num * len(POSES) < FEWEST:
        raise UserError(f"--num {args.num}: makes {args.num * len(POSES)} pictures; at least {FEWEST} are needed")
    settings = {**plain_arguments(args, without=["output_dir"]), "extractor": sha256_of_files([EXTRACTOR])}
    run = Run(args.output_dir / "attributes.json", settings, what="training")
    output = run.folder / "attributes.pt"
    with run.hold():
        if run.is_finished() and output.is_file():
            say(f"{output}: already finished")
            return
        run.begin()
        shares = write_classifier(output, training_data(run.folder / "data.npz", args.num, args.seed))
        run.finish(held_out=shares)


def write_classifier(output: Path, data: dict[str, np.ndarray]) -> dict[str, float]:
    """Train on the pictures, print and return which share of the held-out ones is told right, and write TorchScript."""
    load_torchscript(EXTRACTOR, torch.device("cpu"))  # checks it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, yet the one format that opens without its class
        extractor = torch.jit.load(str(EXTRACTOR))
    pictures = as_tensor(data["pictures"])
    targets = torch.tensor([attributes_of(str(caption), PHRASES) for caption in data["captions"]])
    held_out = torch.arange(len(pictures)) % 10 == 0
    with torch.no_grad():
        features = torch.cat([extractor(batch) for batch in pictures.split(256)])
    model = Attributes(extractor, features[~held_out])
    train_colours(model, features[~held_out], targets[~held_out])
    train_pattern(model, pictures[~held_out], targets[~held_out, -1])
    model.eval().requires_grad_(False)
    scores = torch.cat([model(batch) for batch in pictures[held_out].split(256)])
    found = torch.stack([part.argmax(dim=1) for part in scores.split(SIZES, dim=1)], dim=1)
    shares = dict(zip(PHRASES, (targets[held_out] == found).double().mean(dim=0).tolist()))
    for name, share in shares.items():
        say(f"{name}: {share:.1%} of {int(held_out.sum())} held-out pictures right, {len(PHRASES[name])} classes")
    with atomic_file(output) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(model).save(str(temporary), _extra_files={PHRASES_FILE: json.dumps(PHRASES)})
    return shares


def train_colours(model: Attributes, features: Tensor, targets: Tensor) -> None:
    """The linear classifiers, on features (N, 128) and the classes of all attributes (N, 4)."""
    optimiser = torch.optim.AdamW(model.colours.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS)
    for _ in progress(range(STEPS), desc="Colours", unit="step"):
        parts = model.of_features(features).split(SIZES[:-1], dim=1)
        loss = sum(nn.functional.cross_entropy(part, wanted) for part, wanted in zip(parts, targets.T))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def train_pattern(model: Attributes, pictures: Tensor, targets: Tensor) -> None:
    """The network of the pattern, on pictures (N, 3, 64, 64), mirrored at random, and its classes (N,)."""
    generator = torch.Generator().manual_seed(0)
    weights = [*model.texture.parameters(), *model.pattern.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=PATTERN_RATE, weight_decay=0.01)
    steps = len(pictures) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PATTERN_RATE, total_steps=EPOCHS * steps)
    with progress(total=EPOCHS * steps, desc="Pattern", unit="step") as bar:
        for _ in range(EPOCHS):
            order = torch.randperm(len(pictures), generator=generator)[: steps * BATCH_SIZE]
            for rows in order.split(BATCH_SIZE):
                flipped = [side for side in (2, 3) if torch.rand((), generator=generator) < 0.5]
                batch = pictures[rows].flip(flipped)
                loss = nn.functional.cross_entropy(model.of_texture(batch), targets[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                bar.update()


if __name__ == "__main__":
    main()
