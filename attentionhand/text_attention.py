"""The text attention stage (TAS): move noisy latents until the hand words reach high cross-attention.

Paper, section 3.3 (conditioning phase), after Attend-and-Excite (Chefer et al. 2023). `attention_loss` is its loss,
`excite` the descent on it. The loss reads only the cross-attention maps at a quarter of the latents' side (16x16 for
512 pixels). So only those layers compute their maps explicitly, all other attention stays fused, and the UNet stops
after the last of them: the same gradient at a fraction of the cost.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from attentionhand.visual_attention import NoisyView

TAS_STEPS, STEP_SIZE = 50, 20.0
ATTENTION_SCALE = 100  # of the maps before the softmax over the tokens
KERNEL_SIGMA = 0.5  # pixels


# Which maps


@contextlib.contextmanager
def open_attention(unet: UNet2DConditionModel) -> Iterator["AttentionMaps"]:
    """During the block, the UNet keeps its cross-attention maps at a quarter of the latents' side.

    Raises:
        ValueError: this UNet has no cross-attention there.
    """
    names = layers_at(unet, level=2)
    if not names:
        raise ValueError("this UNet has no cross-attention at a quarter of the latents' side")
    maps = AttentionMaps(len(names))
    before = unet.attn_processors
    unet.set_attn_processor({name: maps if name in names else processor for name, processor in before.items()})
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


def layers_at(unet: UNet2DConditionModel, level: int) -> set[str]:
    """The names of the cross-attention processors where the latents' side has been halved `level` times."""
    levels = len(unet.config.block_out_channels)

    def level_of(name: str) -> int:
        place, _, rest = name.partition(".")
        number = int(rest.split(".")[0]) if place != "mid_block" else 0
        return {"down_blocks": number, "mid_block": levels - 1, "up_blocks": levels - 1 - number}[place]

    return {name for name in unet.attn_processors if ".attn2." in name and level_of(name) == level}


class _LastMapReached(Exception):
    """All maps have been collected; the rest of the UNet is not needed."""


class AttentionMaps:
    """An attention processor that keeps the maps (B, heads, pixels, tokens) of `count` layers.

    With `stop` it ends the UNet's pass after the last of them.
    """

    def __init__(self, count: int, stop: bool = True) -> None:
        self.count, self.stop = count, stop
        self.maps: list[torch.Tensor] = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_) -> torch.Tensor:
        query, key, value = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        query, key, value = (attn.head_to_batch_dim(part) for part in (query, key, value))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self.maps.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)))
        if self.stop and len(self.maps) == self.count:
            raise _LastMapReached
        hidden_states = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](hidden_states))


def attention_of(unet: UNet2DConditionModel, maps: AttentionMaps, latents, timesteps, prompt_embeds) -> torch.Tensor:
    """A_t, the mean of the maps over all layers and heads, (B, 16, 16, 77) for 64 x 64 latents."""
    maps.maps.clear()
    with contextlib.suppress(_LastMapReached):
        unet(latents, timesteps, encoder_hidden_states=prompt_embeds)
    mean = torch.cat(maps.maps, dim=1).mean(dim=1)
    maps.maps.clear()
    side = math.isqrt(mean.shape[1])
    return mean.unflatten(1, (side, side))


# The loss and its descent


def attention_loss(attention: torch.Tensor, positions: Sequence[Sequence[int]] | torch.Tensor) -> torch.Tensor:
    """The text attention loss of each sample, (B,).

        L = max over s in S of L_s,   L_s = max(0, 1 - max(G * softmax(100 A_t)^s))

    The loss of Attend-and-Excite (its section 4): the hand token that the picture neglects most is to be attended
    strongly somewhere. S are the positions of the hand tokens, A_t^s is the map of token s, G the smoothing kernel; the
    softmax runs over the 75 tokens between the start token and the last position.

    Args:
        attention: A_t, (B, 16, 16, 77).
        positions: S for each sample, 1 to 75; or what `padded_tokens` has made of them.
    """
    tokens = positions if isinstance(positions, torch.Tensor) else padded_tokens(positions, attention.device)
    shares = (ATTENTION_SCALE * attention[..., 1:-1]).softmax(dim=-1).permute(0, 3, 1, 2)  # (B, 75, 16, 16)
    rows = torch.arange(len(shares), device=shares.device)[:, None]
    chosen = shares[rows, tokens]  # (B, K, 16, 16)
    peaks = smooth(chosen.flatten(0, 1)).amax(dim=(1, 2)).view(tokens.shape)
    return F.relu(1 - peaks).max(dim=1).values


def padded_tokens(positions: Sequence[Sequence[int]], device: torch.device | str) -> torch.Tensor:
    """The indices (B, K) of CLIP positions (1 to 75) among the 75 tokens between the first and the last.

    Shorter rows repeat their first token, which changes no maximum.
    """
    most = max(map(len, positions))
    rows = [[position - 1 for position in [*own, *[own[0]] * (most - len(own))]] for own in positions]
    return torch.tensor(rows, device=device)


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """G: maps (K, h, w) smoothed with 3x3 weights proportional to exp(-(d / 2 sigma)^2), reflected at the edge."""
    line = torch.exp(-((torch.arange(-1.0, 2.0, device=maps.device, dtype=maps.dtype) / (2 * KERNEL_SIGMA)) ** 2))
    kernel = torch.outer(line, line)
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0]


def excite(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    positions: Sequence[Sequence[int]],
    *,
    steps: int = TAS_STEPS,
) -> torch.Tensor:
    """The text attention stage: gradient steps on noisy latents (B, C, h, w), each sample independent of the others.

        z_t <- z_t - alpha_i grad L(z_t),   alpha_i = 20 sqrt(linspace(1, 1/2, steps)_i),   i = 0 ... steps - 1

    The update of Attend-and-Excite (its section 4), as released without a threshold and without an early stop. Always
    float32: half precision would lose the small gradients.

    Args:
        timesteps: (B,), those of the noisy latents; they stay the same during the descent.
        prompt_embeds: (B, 77, hidden), without guidance.
        positions: for each sample the CLIP positions to excite, 1 to 75.

    Raises:
        ValueError: the UNet has no cross-attention at a quarter of the latents' side.
    """
    no_autocast = torch.autocast(latents.device.type, enabled=False)
    tokens = padded_tokens(positions, latents.device)  # copied to the device once, not in every step
    with open_attention(unet) as maps, no_autocast, torch.enable_grad():
        for scale in torch.linspace(1, 0.5, steps, dtype=torch.float64).sqrt().tolist():
            latents = latents.detach().requires_grad_()
            loss = attention_loss(attention_of(unet, maps, latents, timesteps, prompt_embeds), tokens)
            latents = latents - STEP_SIZE * scale * torch.autograd.grad(loss.sum(), latents)[0]
    return latents.detach()


def excite_views(
    unet: UNet2DConditionModel,
    views: Sequence[NoisyView],
    timesteps: torch.Tensor,
    prompt_embeds: torch.Tensor,
    *,
    steps: int = TAS_STEPS,
) -> list[NoisyView]:
    """The views after the text attention stage, computed as one batch; timesteps (B,) and texts are those of both."""
    moved = excite(
        unet,
        torch.cat([view.latents for view in views]),
        timesteps.repeat(len(views)),
        prompt_embeds.repeat(len(views), 1, 1),
        [positions for view in views for positions in view.positions],
        steps=steps,
    )
    return [view._replace(latents=latents) for view, latents in zip(views, moved.chunk(len(views)))]
