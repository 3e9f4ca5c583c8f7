"""The fusion of text and gesture (paper, section "Stage II: Text Embedding Optimization"), without storing 14 GB.

`fuse`            the fused embedding: a fully connected layer on text embedding and gesture feature
`double_fusion`   the double-fused embedding: λ, in generation μ, of the text, the rest of the fused embedding

The released layer is `nn.Linear(77*768 + 63, 77*768)`: 3.5 billion weights, drawn at random and never trained. Here
its weight exists one row block at a time: drawn anew from a seed, or streamed from a file (fusion_weights.py).
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from core.runs.processes import progress
from hand1000.fusion_weights import stored_blocks

BLOCK_ELEMENTS = 2**24  # weights held at a time: 64 MB


@torch.no_grad()
def fuse(
    prompt_embeds: torch.Tensor,
    gesture_feature: torch.Tensor,
    *,
    seed: int = 0,
    weights_file: Path | None = None,
    device: torch.device | str = "cpu",
    block_elements: int = BLOCK_ELEMENTS,
) -> torch.Tensor:
    """The fused embeddings W [t; g] + b of text embeddings t, each concatenated with the gesture feature g.

    Args:
        prompt_embeds: t, (N, 77, hidden); all of a run in one call, since W is made once a call.
        gesture_feature: g, (63,).
        seed: W and b are those of `torch.manual_seed(seed); nn.Linear(in, out)`, to the bit, on every device.
        weights_file: take W and b from this file instead of the seed (see `stored_blocks`).
        device: where to multiply.
        block_elements: how many weights to hold at a time; only float rounding depends on it.

    Returns:
        (N, 77, hidden) float32 on the CPU. Memory beyond that: one copy of the input and one block.

    Raises:
        UserError: the file holds no fusion weights, or those of another text encoder.
    """
    count = len(prompt_embeds)
    text = prompt_embeds.reshape(count, -1).float()
    inputs = torch.cat([text, gesture_feature.to(text).expand(count, -1)], dim=1).to(device)  # (N, 77 * hidden + 63)
    in_features, out_features = inputs.shape[1], text.shape[1]
    rows = max(1, block_elements // in_features)
    if weights_file:
        blocks = stored_blocks(weights_file, in_features, out_features, rows)
    else:
        blocks = seeded_blocks(seed, in_features, out_features, rows)

    fused = torch.empty(count, out_features)
    start = 0
    with progress(total=out_features, desc="Fusing text and gesture", unit="row") as bar:
        for block in blocks:
            if block.ndim == 1:  # the bias comes last
                fused += block
                continue
            stop = start + len(block)
            fused[:, start:stop] = (inputs @ block.to(inputs).T).cpu()
            start = stop
            bar.update(len(block))
    return fused.view(prompt_embeds.shape)


def double_fusion(prompt_embeds: torch.Tensor, fused_embeds: torch.Tensor, text_share: float) -> torch.Tensor:
    """The double-fused embeddings λ t + (1 - λ) f of text embeddings t and fused embeddings f, all (N, 77, hidden).

    `text_share` is λ (--Lambda, released 0.7) in training and μ (--mu) in generation, both from 0 to 1.
    """
    return text_share * prompt_embeds + (1 - text_share) * fused_embeds


def seeded_blocks(seed: int, in_features: int, out_features: int, rows: int) -> Iterator[torch.Tensor]:
    """Row blocks of an `nn.Linear` weight drawn from `seed`, then its bias.

    `nn.Linear`'s default initialisation: weight, then bias, uniform between -1/sqrt(fan_in) and +1/sqrt(fan_in). The
    CPU generator draws uniform numbers one by one, so the block size does not change them.
    """
    generator = torch.Generator().manual_seed(seed)
    bound = in_features**-0.5
    for start in range(0, out_features, rows):
        block = torch.empty(min(rows, out_features - start), in_features)
        yield block.uniform_(-bound, bound, generator=generator)
    yield torch.empty(out_features).uniform_(-bound, bound, generator=generator)
