"""The text attention stage (TAS): move noisy latents until hand words hold high cross-attention.

Paper, section "Text attention stage", after Attend-and-Excite (Chefer et al. 2023). Only the cross-attention maps at a
quarter of the latents' side (16x16 for 512 pixels) enter its loss, so only those are computed openly, all other
attention stays fused, and the UNet stops at the last of them: the same gradient at a fraction of the cost.
"""

import contextlib
import functools
import math
import re
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

HAND_WORDS = {"hand", "hands", "gesture", "finger", "fingers"}
# Nouns and the like in -ing, where no tagger is at hand.
NO_VERBS = set(
    "thing something anything everything nothing ring king wing string spring sling ceiling building clothing morning "
    "evening wedding painting pudding railing bring sing swing during earring stocking sibling darling duckling ping "
    "flooring lighting parking dressing icing frosting topping bedding awning outing being".split()
)
LAST_POSITION = 75  # of the 77: the start token and the last one carry no map
TAS_STEPS, STEP_SIZE = 50, 20.0
KERNEL_SIGMA = 0.5


# Which tokens


def hand_words(words: Sequence[str]) -> list[int]:
    """The indices of hand words and of verbs in -ing; the first word where there is none."""
    verbs = verbs_in_ing(words)
    chosen = [index for index, word in enumerate(words) if word.lower() in HAND_WORDS or index in verbs]
    return chosen or [0]


def has_hand_word(text: str) -> bool:
    words = re.findall(r"[^\W_]+", text)
    return any(word.lower() in HAND_WORDS for word in words) or bool(verbs_in_ing(words))


def verbs_in_ing(words: Sequence[str]) -> set[int]:
    """Indices of VBG words: by NLTK's tagger where it and its data are installed, else by their ending."""
    tag = _nltk_tagger()
    if tag:
        return {index for index, (_, kind) in enumerate(tag(list(words))) if kind == "VBG"}
    return {
        index
        for index, word in enumerate(map(str.lower, words))
        if word.endswith("ing") and len(word) > 4 and word not in NO_VERBS
    }


@functools.cache
def _nltk_tagger():
    try:
        import nltk

        nltk.pos_tag(["holding"])
    except (ImportError, LookupError):
        return None
    return nltk.pos_tag


def token_positions(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """CLIP positions (1 to 75) of all pieces of the hand words of a text; of the first word where there is none.

    Words that lie beyond CLIP's 77 tokens do not count.
    """
    spans = [match.span() for match in re.finditer(r"[^\W_]+(?:['’][^\W_]+)?", text)]
    encoded = tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
    pieces = [
        (position, start, end)
        for position, (start, end) in enumerate(encoded["offset_mapping"])
        if start < end and 1 <= position <= LAST_POSITION
    ]

    def positions(span: tuple[int, int]) -> list[int]:
        return [position for position, start, end in pieces if start < span[1] and end > span[0]]

    chosen = [span for index, span in enumerate(spans) if index in set(hand_words([text[a:b] for a, b in spans]))]
    found = [position for span in chosen for position in positions(span)]
    return found or [1]


def released_positions(text: str) -> list[int]:
    """What the released code excites: the index of the *word* among NLTK's words of the first 75 characters.

    It takes one off for the start token without ever having added it, so that word 0 becomes the last position.
    """
    words = re.findall(r"\w+(?=n't)|n't|'\w+|\w+|[^\w\s]", text[:75])
    return [index or LAST_POSITION for index in hand_words(words)]


# Which maps


@contextlib.contextmanager
def open_attention(unet: UNet2DConditionModel) -> Iterator["AttentionMaps"]:
    """Let the UNet keep its cross-attention maps at a quarter of the latents' side, during the block.

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
    """Names of the cross-attention processors where the latents are halved `level` times."""
    levels = len(unet.config.block_out_channels)

    def level_of(name: str) -> int:
        place, _, rest = name.partition(".")
        number = int(rest.split(".")[0]) if place != "mid_block" else 0
        return {"down_blocks": number, "mid_block": levels - 1, "up_blocks": levels - 1 - number}[place]

    return {name for name in unet.attn_processors if ".attn2." in name and level_of(name) == level}


class _LastMap(Exception):
    """The UNet need not go on."""


class AttentionMaps:
    """An attention processor that keeps the maps (B, heads, pixels, tokens) of its layers and stops at the last."""

    def __init__(self, count: int, stop: bool = True) -> None:
        self.count, self.stop = count, stop
        self.maps: list[torch.Tensor] = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_) -> torch.Tensor:
        query, key, value = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        query, key, value = (attn.head_to_batch_dim(part) for part in (query, key, value))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self.maps.append(probabilities.unflatten(0, (len(hidden_states), attn.heads)))
        if self.stop and len(self.maps) == self.count:
            raise _LastMap
        hidden_states = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](hidden_states))


def attention_of(unet: UNet2DConditionModel, maps: AttentionMaps, latents, timesteps, prompt_embeds) -> torch.Tensor:
    """(B, 16, 16, 77): the mean over all layers' heads."""
    maps.maps.clear()
    with contextlib.suppress(_LastMap):
        unet(latents, timesteps, encoder_hidden_states=prompt_embeds)
    mean = torch.cat(maps.maps, dim=1).mean(dim=1)
    maps.maps.clear()
    side = math.isqrt(mean.shape[1])
    return mean.unflatten(1, (side, side))


# The loss and its descent


def attention_loss(attention: torch.Tensor, positions: Sequence[Sequence[int]]) -> torch.Tensor:
    """max over a text's hand tokens of 1 - max(smoothed map), (B,).

    The maps (B, 16, 16, 77) are times 100 and a softmax over the 75 tokens between the start and the last position.
    """
    shares = (100 * attention[..., 1:-1]).softmax(dim=-1)
    losses = []
    for one, chosen in zip(shares, positions, strict=True):
        peaks = smooth(one[..., [position - 1 for position in chosen]].permute(2, 0, 1)).amax(dim=(1, 2))
        losses.append(F.relu(1 - peaks).max(dim=0).values)
    return torch.stack(losses)


def smooth(maps: torch.Tensor) -> torch.Tensor:
    """(K, h, w) smoothed with 3x3 weights proportional to exp(-(d / 2 sigma)^2), reflected at the edge."""
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
    """The text attention stage: `steps` gradient steps on noisy latents (B, C, h, w), each sample by itself.

    The step size falls from 20 as 20 sqrt(linspace(1, 1/2, steps)); there is no threshold and no early stop.

    Args:
        timesteps: (B,), the training step's own.
        prompt_embeds: (B, 77, hidden), no guidance.
        positions: for each sample the CLIP positions to excite, 1 to 75.

    Raises:
        ValueError: the UNet has no cross-attention at a quarter of the latents' side.
    """
    with open_attention(unet) as maps, torch.enable_grad():
        for scale in torch.linspace(1, 0.5, steps, dtype=torch.float64).sqrt().tolist():
            latents = latents.detach().requires_grad_()
            loss = attention_loss(attention_of(unet, maps, latents, timesteps, prompt_embeds), positions)
            latents = latents - STEP_SIZE * scale * torch.autograd.grad(loss.sum(), latents)[0]
    return latents.detach()
