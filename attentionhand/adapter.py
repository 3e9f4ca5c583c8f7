"""T2I-Adapter (Mou et al. 2024), a baseline of the paper's tables: diffusers' own network, trained with the same loss.

It sees the mesh image once and adds a feature to the UNet at each resolution on the way down; unlike a ControlNet it
knows neither the latents nor the timestep.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from diffusers import AutoencoderKL, T2IAdapter, UNet2DConditionModel


def new_adapter(unet: UNet2DConditionModel, vae: AutoencoderKL, seed: int = 0) -> T2IAdapter:
    """An adapter that fits a Stable Diffusion, with random weights of `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T2IAdapter(
            in_channels=3,
            channels=list(unet.config.block_out_channels),
            downscale_factor=2 ** (len(vae.config.block_out_channels) - 1),
        )


@contextlib.contextmanager
def adapted(unet: UNet2DConditionModel, features: Sequence[torch.Tensor]) -> Iterator[None]:
    """During the block, the UNet adds a feature to what each of its blocks on the way down makes, before it is halved.

    As diffusers' own `down_intrablock_additional_residuals`, which can't be used where a block without attention is
    not the last one.

    Args:
        features: (B, C_i, h / 2^i, w / 2^i) for each block i.
    """
    handles = []
    for block, feature in zip(unet.down_blocks, features, strict=True):
        last = block.attentions[-1] if getattr(block, "has_cross_attention", False) else block.resnets[-1]

        def add(module, inputs, output, feature=feature):
            return (output[0] + feature, *output[1:]) if isinstance(output, tuple) else output + feature

        handles.append(last.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
