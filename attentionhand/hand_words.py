"""Which words of a text are about hands, and which of CLIP's tokens they are: what the text attention stage excites.

Paper, section 3.3: hand words ("hand", "fingers", ...) and verbs in -ing, such as "holding".
"""

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.runs.errors import UserError
from core.runs.processes import say

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

HAND_WORDS = {"hand", "hands", "gesture", "finger", "fingers"}
NOT_VERBS = set(  # words in -ing that are not verbs
    "thing something anything everything nothing ring king wing string spring sling ceiling building clothing morning "
    "evening wedding painting pudding railing bring sing swing during earring stocking sibling darling duckling ping "
    "flooring lighting parking dressing icing frosting topping bedding awning outing being".split()
)
VERBS = ("ending", "nltk")  # how verbs are found: by the ending -ing, or by NLTK's tagger as in the released code
LAST_POSITION = 75  # of CLIP's positions 0 to 76; the maps of the start token and of the last position are left out
RELEASED_CHARACTERS = 75  # of a text that the released code looks at


def hand_words(words: Sequence[str], verbs: str = "ending") -> list[int]:
    """The indices of hand words and of verbs in -ing; that of the first word where there is none."""
    found = verbs_in_ing(words, verbs)
    chosen = [index for index, word in enumerate(words) if word.lower() in HAND_WORDS or index in found]
    return chosen or [0]


def has_hand_word(text: str, verbs: str = "ending") -> bool:
    """Whether a text names hands or fingers, or has a verb in -ing."""
    words = re.findall(r"[^\W_]+", text)
    return any(word.lower() in HAND_WORDS for word in words) or bool(verbs_in_ing(words, verbs))


def verbs_in_ing(words: Sequence[str], verbs: str) -> set[int]:
    """The indices of verbs in -ing.

    Args:
        verbs: "ending" goes by the ending, but for a list of nouns; "nltk" takes what NLTK's tagger calls VBG.

    Raises:
        UserError: NLTK or its data are not installed.
    """
    if verbs == "nltk":
        return {index for index, (_, kind) in enumerate(nltk_tagger()(list(words))) if kind == "VBG"}
    return {
        index
        for index, word in enumerate(map(str.lower, words))
        if word.endswith("ing") and len(word) > 4 and word not in NOT_VERBS
    }


@functools.cache
def nltk_tagger():
    """NLTK's part-of-speech tagger.

    Raises:
        UserError: it or its data are not installed.
    """
    try:
        import nltk

        nltk.pos_tag(["holding"])
    except (ImportError, LookupError):
        raise UserError(
            "--tas_verbs nltk needs NLTK and its data: pip install nltk; python -m nltk.downloader "
            "averaged_perceptron_tagger_eng (or pass --tas_verbs ending)"
        ) from None
    return nltk.pos_tag


def token_positions(tokenizer: "CLIPTokenizer", text: str, verbs: str = "ending") -> list[int]:
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

    words = set(hand_words([text[a:b] for a, b in spans], verbs))
    chosen = [span for index, span in enumerate(spans) if index in words]
    found = [position for span in chosen for position in positions(span)]
    return found or [1]


def released_positions(text: str, verbs: str = "ending") -> list[int]:
    """The positions that the released code excites: the index of the *word* among NLTK's words of 75 characters.

    It subtracts one for the start token without ever having added it, so that word 0 becomes the last position.
    """
    words = treebank_words(text[:RELEASED_CHARACTERS])
    return [index or LAST_POSITION for index in hand_words(words, verbs)]


# NLTK's word_tokenize (as of version 3.9.1), which the released code calls: the Penn Treebank's rules, in order, each
# putting blanks around something. "t-shirt", "3.5" and "U.S." stay one word, a full stop at the end is one of its own.
TREEBANK_RULES = [
    (r"([«“‘„]|`+)", r" \1 "),
    (r"^\"", r"``"),
    (r"(``)", r" \1 "),
    (r"([ \(\[{<])(\"|'{2})", r"\1 `` "),
    (r"(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b", r"\1 \2"),
    (r"([^.])(\.)([\]\)}>\"'»”’ ]*)\s*$", r"\1 \2 \3 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"(\.{2,}|[;@#$%&?!*])", r" \1 "),
    (r"([^'])' ", r"\1 ' "),
    (r"([\]\[(){}<>]|--)", r" \1 "),
    (r"([»”’])", r" \1 "),
    (r"('')", r" \1 "),
    (r"\"", r" '' "),
    (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    (r"(?i)\b(can)(not)\b", r" \1 \2 "),
    (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
    (r"(?i)\b(gon|wan)(na)\b", r" \1 \2 "),
    (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
    (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
    (r"(?i)\b(more)('n)\b", r" \1 \2 "),
    (r"(?i) ('t)(is|was)\b", r" \1 \2 "),
]
PADDED_FROM = TREEBANK_RULES.index((r"([»”’])", r" \1 "))  # from this rule on the text has a blank at both ends
# A sentence ends before a capital, but not after initials such as "U.S.".
SENTENCE_END = re.compile(r"(?<!\b\w\.\w\.)(?<!\b\w\.)(?<=[.!?])\s+(?=[A-Z\"'(])")


def treebank_words(text: str) -> list[str]:
    """The words and marks of a text, split as NLTK does it, whether it is installed or not."""
    words: list[str] = []
    for sentence in SENTENCE_END.split(text.strip()):
        for number, (pattern, replacement) in enumerate(TREEBANK_RULES):
            if number == PADDED_FROM:
                sentence = f" {sentence} "
            sentence = re.sub(pattern, replacement, sentence)
        words += sentence.split()
    return words


# Whole data sets


def excited_positions(
    tokenizer: "CLIPTokenizer", texts: Sequence[str], tas_tokens: str, verbs: str = "ending"
) -> tuple[list[list[int]], list[list[int]]]:
    """The CLIP positions to excite in the global and in the local view of each text.

    Args:
        tas_tokens: "words" takes the hand words of the text in both views; "released" what the released code takes, in
            the local view that of the text "hand".
        verbs: as `verbs_in_ing`.
    """
    if tas_tokens == "released":
        return [released_positions(text, verbs) for text in texts], [released_positions("hand")] * len(texts)
    positions = [token_positions(tokenizer, text, verbs) for text in texts]
    return positions, positions


def warn_of_texts(tokenizer: "CLIPTokenizer", texts: Sequence[str], verbs: str = "ending") -> None:
    """Say once how many texts have no hand word, or have theirs only where CLIP cuts them off."""
    without = [text for text in texts if not has_hand_word(text, verbs)]
    if without:
        say(f"texts without a hand word: {len(without)}; their first word is excited, e.g. '{without[0][:60]}'")
    most = tokenizer.model_max_length
    long = [text for text in texts if len(text.encode()) > most - 2]  # a token has at least one byte
    cut = [text for text in long if has_hand_word(text, verbs) and token_positions(tokenizer, text, verbs) == [1]]
    if cut:
        say(f"texts with hand words beyond CLIP's {most} tokens: {len(cut)}; shorten them, e.g. '{cut[0][:60]}…'")
