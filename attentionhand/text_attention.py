"""The text attention stage (TAS): move noisy latents until the hand words reach high cross-attention.

Paper, section 3.3 (conditioning phase), after Attend-and-Excite (Chefer et al. 2023). `attention_loss` is its loss,
`excite` the descent on it. The loss reads only the cross-attention maps at a quarter of the latents' side (16x16 for
512 pixels). So only those layers compute their maps explicitly, all other attention stays fused, and the UNet stops
after the last of them: the same gradient at a fraction of the cost.
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

from attentionhand.visual_attention import NoisyView
from core.runs.processes import say

HAND_WORDS = {"hand", "hands", "gesture", "finger", "fingers"}
# Words in -ing that are not verbs, for when NLTK's tagger is not installed.
NOT_VERBS = set(
    "thing something anything everything nothing ring king wing string spring sling ceiling building clothing morning "
    "evening wedding painting pudding railing bring sing swing during earring stocking sibling darling duckling ping "
    "flooring lighting parking dressing icing frosting topping bedding awning outing being".split()
)
LAST_POSITION = 75  # of CLIP's positions 0 to 76; the maps of the start token and of the last position are left out
TAS_STEPS, STEP_SIZE = 50, 20.0
ATTENTION_SCALE = 100  # of the maps before the softmax over the tokens
KERNEL_SIGMA = 0.5  # pixels


# Which tokens


def hand_words(words: Sequence[str]) -> list[int]:
    """The indices of hand words and of verbs in -ing; that of the first word where there is none."""
    verbs = verbs_in_ing(words)
    chosen = [index for index, word in enumerate(words) if word.lower() in HAND_WORDS or index in verbs]
    return chosen or [0]


def has_hand_word(text: str) -> bool:
    """Whether a text names hands or fingers, or has a verb in -ing."""
    words = re.findall(r"[^\W_]+", text)
    return any(word.lower() in HAND_WORDS for word in words) or bool(verbs_in_ing(words))


def verbs_in_ing(words: Sequence[str]) -> set[int]:
    """The indices of words tagged VBG: by NLTK where it and its data are installed, otherwise by the ending -ing."""
    tag = _nltk_tagger()
    if tag:
        return {index for index, (_, kind) in enumerate(tag(list(words))) if kind == "VBG"}
    return {
        index
        for index, word in enumerate(map(str.lower, words))
        if word.endswith("ing") and len(word) > 4 and word not in NOT_VERBS
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
    """CLIP's positions (1 to 75) of the hand words of a text, all pieces of each; [1] where none is found.

    Words beyond CLIP's 77 tokens are not found.
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
    """The positions that the released code excites: the index of the *word* among NLTK's words of 75 characters.

    It subtracts one for the start token without ever having added it, so that word 0 becomes the last position.
    """
    words = re.findall(r"\w+(?=n't)|n't|'\w+|\w+|[^\w\s]", text[:75])
    return [index or LAST_POSITION for index in hand_words(words)]


def excited_positions(
    tokenizer: CLIPTokenizer, texts: Sequence[str], tas_tokens: str
) -> tuple[list[list[int]], list[list[int]]]:
    """The CLIP positions to excite in the global and in the local view of each text.

    Args:
        tas_tokens: "words" takes the hand words of the text in both views; "released" what the released code takes, in
            the local view that of the text "hand".
    """
    if tas_tokens == "released":
        return [released_positions(text) for text in texts], [released_positions("hand")] * len(texts)
    positions = [token_positions(tokenizer, text) for text in texts]
    return positions, positions


def warn_of_texts(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> None:
    """Say once how many texts have no hand word, or have theirs only where CLIP cuts them off."""
    without = [text for text in texts if not has_hand_word(text)]
    if without:
        say(f"texts without a hand word: {len(without)}; their first word is excited, e.g. '{without[0][:60]}'")
    cut = [text for text in texts if has_hand_word(text) and token_positions(tokenizer, text) == [1]]
    if cut:
        most = tokenizer.model_max_length
        say(f"texts with hand words beyond CLIP's {most} tokens: {len(cut)}; shorten them, e.g. '{cut[0][:60]}…'")


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


def attention_loss(attention: torch.Tensor, positions: Sequence[Sequence[int]]) -> torch.Tensor:
    """The text attention loss of each sample, (B,).

        L = max over s in S of L_s,   L_s = max(0, 1 - max(G * softmax(100 A_t)^s))

    The loss of Attend-and-Excite (its section 4): the hand token that the picture neglects most is to be attended
    strongly somewhere. S are the positions of the hand tokens, A_t^s is the map of token s, G the smoothing kernel; the
    softmax runs over the 75 tokens between the start token and the last position.

    Args:
        attention: A_t, (B, 16, 16, 77).
        positions: S for each sample, 1 to 75.
    """
    shares = (ATTENTION_SCALE * attention[..., 1:-1]).softmax(dim=-1)  # (B, 16, 16, 75)
    losses = []
    for one, chosen in zip(shares, positions, strict=True):
        peaks = smooth(one[..., [position - 1 for position in chosen]].permute(2, 0, 1)).amax(dim=(1, 2))
        losses.append(F.relu(1 - peaks).max(dim=0).values)
    return torch.stack(losses)


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
    with open_attention(unet) as maps, no_autocast, torch.enable_grad():
        for scale in torch.linspace(1, 0.5, steps, dtype=torch.float64).sqrt().tolist():
            latents = latents.detach().requires_grad_()
            loss = attention_loss(attention_of(unet, maps, latents, timesteps, prompt_embeds), positions)
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
