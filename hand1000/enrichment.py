"""Gesture enrichment: captions that name the target gesture, exactly and once (paper, section "Data set construction").

The released recipe sends one prompt to an LLM and trusts the answer. Here every answer is checked, and what stays wrong
is repaired by a rule.
"""

import re
from collections.abc import Sequence

from hand1000.gestures import GESTURE, gesture_mentions

PROMPT = (  # released, word for word
    "The following sentence contains incorrect hand gesture information or lacks hand gesture information. "
    "If it contains incorrect hand gesture information, modify it to '{phrase}.' "
    "If it lacks hand gesture information, append '{phrase}' to the end of the sentence. "
    "The original sentence is: '{caption}.' The final sentence must include '{phrase}' exactly as it is. "
    "Provide the modified sentence directly and independently."
)
LEAST_KEPT = 0.5  # of a caption's content words; an answer that keeps fewer is another caption
MOST_ADDED = 20  # characters beside the phrase; "and is", "while"
FUNCTION_WORDS = frozenset(
    "a an the and or of in on at to with by for from is are was be it its his her their this that there while".split()
)
PREAMBLE = re.compile(
    r"^(?:sure|certainly|of course|okay|here|the (?:modified|final|original|revised|corrected)|note)\b", re.I
)
AND = "(?:and|while|or|with)"  # what joins a gesture to the rest
OPENING, CLOSING = "\"'“‘`*«([{", "\"'”’`*»)]}"


def enrichment_prompt(caption: str, phrase: str) -> str:
    """The released prompt for one caption."""
    return PROMPT.format(phrase=phrase, caption=caption.rstrip(". "))


def enrich_by_rule(caption: str, phrase: str) -> str:
    """The caption with the phrase in place of the first gesture that it names, or at its end; other gestures go.

    Deterministic; a caption that is right already comes back as it is.
    """
    caption = one_line(caption)
    other = rf"(?:{re.escape(phrase)}|{GESTURE.pattern})"
    before, found, after = caption.partition(phrase)
    if found:
        before = re.sub(rf"{other}(?:,?\s+{AND}\b)?", "", before, flags=re.I)
    elif mention := GESTURE.search(caption):
        before, after = caption[: mention.start()], caption[mention.end() :]
    else:
        before, after = re.fullmatch(r"(.*?)([\s,.;:!?]*)", caption).groups()
        after = after.strip(" ,;:")
    after = re.sub(rf"(?:,?\s*\b{AND})?\s*{other}", "", after, flags=re.I)
    return re.sub(r"\s+([,.;!?])", r"\1", one_line(f"{before} {phrase} {after}"))


def problems(answer: str, caption: str, phrase: str) -> list[str]:
    """What is wrong with an enriched caption, in words for the model that wrote it; none if it is right."""
    found = []
    if len(answer.split("\n")) > 1:
        found.append("it is more than one line")
    count = answer.count(phrase)
    if count != 1:
        found.append(f"it contains '{phrase}' {count} times instead of once")
    others = gesture_mentions(" | ".join(answer.split(phrase)))
    if others:
        found.append(f"it also names the gesture '{others[0].strip()}'")
    if PREAMBLE.match(answer) and not PREAMBLE.match(caption):
        found.append("it begins with an explanation")
    starts, ends = answer[:1] != caption[:1], answer[-1:] != caption[-1:]
    if (starts and answer[:1] in OPENING) or (ends and answer[-1:] in CLOSING):
        found.append("it is put in quotes or brackets")
    if len(answer) > len(caption) + len(phrase) + MOST_ADDED:
        found.append("it adds text of its own")
    if share_kept(answer, caption) < LEAST_KEPT:
        found.append("it leaves out most of the original sentence")
    return found


def share_kept(answer: str, caption: str) -> float:
    """Share of the caption's content words, gestures aside, that are also in the answer; 1 where it has none."""
    wanted = content_words(GESTURE.sub(" ", caption))
    return len(wanted & content_words(answer)) / len(wanted) if wanted else 1.0


def content_words(text: str) -> set[str]:
    """Lower-case words without articles, prepositions and the like."""
    return set(re.findall(r"\w+", text.lower())) - FUNCTION_WORDS


def share_with_phrase(captions: Sequence[str], phrase: str) -> float:
    """Share of captions that contain the gesture phrase, exactly as it is."""
    return sum(phrase in caption for caption in captions) / len(captions)


def one_line(text: str) -> str:
    """The text with every run of white space, newlines included, folded to one blank."""
    return " ".join(text.split())
