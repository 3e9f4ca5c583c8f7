"""The random numbers of Stages II and III: all of them are drawn here.

On the CPU, so that every device sees the same ones. The interleaved schedule draws as the released code does, which
seeds anew for every photo: all photos see the same 30 noises and timesteps. The staged schedule gives every photo, and
every place in Stage III, numbers of their own. With a noise offset each noise is followed by one more number a channel.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from core.diffusion.noise import copied, derived_seed, with_offset
from core.diffusion.stable_diffusion import TIMESTEPS
from hand1000.hyperparameters import STAGED, Hyperparameters

STAGE_TWO, SHUFFLE, STAGE_THREE, LORA, IMAGIC = range(5)  # what a derived seed is for


class Draw(NamedTuple):
    """The random numbers of one step."""

    noise: torch.Tensor  # (B, 4, h, w)
    timesteps: torch.Tensor  # (B,)

    def to(self, device: torch.device) -> "Draw":
        return Draw(copied(self.noise, device), copied(self.timesteps, device))


class PhotoDraws(NamedTuple):
    """The random numbers of one photo, in the order in which they are drawn."""

    posterior_noise: torch.Tensor  # (1, 4, h, w): for the sample of the VAE's posterior
    stage_two: list[Draw]
    stage_three: list[Draw]


def photo_draws(
    seed: int,
    latent_shape: Sequence[int],
    *,
    embedding_steps: int = 0,
    finetune_steps: int = 0,
    noise_offset: float | None = None,
) -> PhotoDraws:
    """The random numbers of a photo in the released order; `latent_shape` is (1, 4, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    posterior_noise = torch.randn(latent_shape, generator=generator)
    torch.randn(latent_shape, generator=generator)  # the released code draws this one and never uses it
    stage_two = [_draw(generator, latent_shape, noise_offset) for _ in range(embedding_steps)]
    stage_three = [_draw(generator, latent_shape, noise_offset) for _ in range(finetune_steps)]
    return PhotoDraws(posterior_noise, stage_two, stage_three)


def photo_seed(params: Hyperparameters, photo: int) -> int:
    """The seed of a photo's numbers: the run's own as released, in the staged schedule one for each photo."""
    return derived_seed(params.seed, STAGE_TWO, photo) if params.schedule == STAGED else params.seed


def shuffled_photo(seed: int, place: int, count: int) -> int:
    """The staged schedule's Stage III goes over all `count` photos again and again, each time newly shuffled: the photo
    at a place in this endless row."""
    return _shuffle(seed, place // count, count)[place % count]


def place_draw(seed: int, place: int, latent_shape: Sequence[int], noise_offset: float | None = None) -> Draw:
    """The noise and the timestep of a place in that row."""
    return _draw(torch.Generator().manual_seed(derived_seed(seed, STAGE_THREE, place)), latent_shape, noise_offset)


def joined(draws: Sequence[Draw]) -> Draw:
    """The draws of several photos as one batch."""
    return Draw(torch.cat([draw.noise for draw in draws]), torch.cat([draw.timesteps for draw in draws]))


def _draw(generator: torch.Generator, latent_shape: Sequence[int], noise_offset: float | None) -> Draw:
    """One photo's noise, then its timestep."""
    noise = with_offset(torch.randn(tuple(latent_shape), generator=generator), noise_offset, generator)
    return Draw(noise, torch.randint(TIMESTEPS, (1,), generator=generator))


@functools.lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(derived_seed(seed, SHUFFLE, epoch))
    return torch.randperm(count, generator=generator).tolist()
