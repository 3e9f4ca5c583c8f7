"""The text attention stage: the loss and its descent, against a literal version."""

import pytest
import torch
from attentionhand_helpers import inputs, literal_excite, random_mesh

from attentionhand import text_attention
from attentionhand.text_attention import (
    attention_loss,
    attention_of,
    excite,
    excite_views,
    open_attention,
)
from attentionhand.visual_attention import NoisyView

pytestmark = pytest.mark.usefixtures("one_thread")


def test_excite_is_the_literal_descent_in_any_batch(attention_pipe):
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    ours = excite(attention_pipe.unet, latents, timesteps, embeds, positions, steps=6)
    assert (ours - latents).abs().max() > 1e-3
    for one in range(2):
        part = slice(one, one + 1)
        literal = literal_excite(
            attention_pipe.unet, latents[part], timesteps[part], embeds[part], positions[one], steps=6
        )
        assert (literal - ours[part]).abs().max() < 5e-6
        alone = excite(attention_pipe.unet, latents[part], timesteps[part], embeds[part], positions[part], steps=6)
        assert (alone - ours[part]).abs().max() < 2e-6


def test_stopping_early_leaves_the_gradient(attention_pipe):
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    gradients = []
    for stop in (True, False):
        with open_attention(attention_pipe.unet) as maps:
            maps.stop = stop
            moved = latents.clone().requires_grad_()
            loss = attention_loss(attention_of(attention_pipe.unet, maps, moved, timesteps, embeds), positions)
            gradients.append(torch.autograd.grad(loss.sum(), moved)[0])
    assert gradients[0].abs().max() > 0 and torch.equal(*gradients)
    assert not any(
        isinstance(one, text_attention.AttentionMaps) for one in attention_pipe.unet.attn_processors.values()
    )


def test_views_are_excited_each_for_itself(attention_pipe):
    """Both views in one batch of twice the size, with the same timesteps and texts but their own tokens."""
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    others, mesh = latents.flip(0), random_mesh()
    views = [NoisyView(latents, mesh, latents, positions), NoisyView(others, mesh, others, [[75], [1]])]
    moved = excite_views(attention_pipe.unet, views, timesteps, embeds, steps=2)
    for view, ours in zip(views, moved, strict=True):
        alone = excite(attention_pipe.unet, view.latents, timesteps, embeds, view.positions, steps=2)
        assert (alone - ours.latents).abs().max() < 2e-6 and (ours.latents - view.latents).abs().max() > 1e-4
        assert ours.mesh is view.mesh and ours.noise is view.noise


def test_half_precision_around_it_changes_nothing(attention_pipe):
    latents, timesteps, embeds, positions = inputs(attention_pipe)
    plain = excite(attention_pipe.unet, latents, timesteps, embeds, positions, steps=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(excite(attention_pipe.unet, latents, timesteps, embeds, positions, steps=1), plain)
