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
LEAST_KEPT = 0.7  # of a caption's content words; an answer that keeps fewer is another caption
MOST_ADDED = 1  # content words that are neither the caption's nor the phrase's
FUNCTION_WORDS = frozenset(
    "a an the and or of in on at to with by for from is are was be it its his her their this that there while".split()
)
PREAMBLE = re.compile(
    r"(?:sure|certainly|of course|okay|here|sorry|i |i'm|note|answer|the (?:modified|final|original|revised|corrected)"
    r"|(?:modified|final|revised|corrected)\b|[-•]|\d+[.)])",
    re.IGNORECASE,
)
MARKS = "\"“”‘’'`*«»<>()[]{}:"  # of quotes, brackets, mark-up and explanations
AND = "(?:and|while|or|with)"  # what joins a gesture to the rest


def enrichment_prompt(caption: str, phrase: str) -> str:
    """The released prompt for one caption."""
    return PROMPT.format(phrase=phrase, caption=caption.rstrip(". "))


def enrich_by_rule(caption: str, phrase: str) -> str:
    """The caption with the phrase in place of the first gesture that it names, or at its end; other gestures go.

    Deterministic; a caption that is right already comes back as it is.
    """
    caption = one_line(caption)
    found = _whole(phrase).search(caption) or GESTURE.search(caption)
    if found:
        before, after = caption[: found.start()], caption[found.end() :]
    else:
        before = caption.rstrip(" ,.;:!?")
        after = caption[len(before) :].strip(" ,;:")
    other = rf"(?:{_whole(phrase).pattern}|{GESTURE.pattern})"
    for _ in range(3):  # taking one out may bring another's parts together
        before = re.sub(rf"{other}(?:,?\s+{AND}\b)?", "", one_line(before), flags=re.I)
        after = re.sub(rf"(?:,?\s*\b{AND})?\s*{other}", "", one_line(after), flags=re.I)
    text = one_line(f"{before} {phrase} {after}")
    text = re.sub(r"\s+([,.;!?)])", r"\1", text).replace("( ", "(")
    return re.sub(r",(?:\s*,)+", ",", text).rstrip(",")


def problems(answer: str, caption: str, phrase: str) -> list[str]:
    """What is wrong with an enriched caption, in words for the model that wrote it; none if it is right."""
    found = []
    if answer != one_line(answer):
        found.append("it is more than one line, or has odd blanks")
    parts = _whole(phrase).split(answer)
    if len(parts) != 2 or answer.count(phrase) != 1:
        found.append(f"it contains '{phrase}' {len(parts) - 1} times instead of once")
    others = gesture_mentions(" | ".join(parts))
    if others:
        found.append(f"it also names the gesture '{others[0].strip()}'")
    if PREAMBLE.match(answer) and not PREAMBLE.match(caption) and not answer.startswith(phrase):
        found.append("it begins with an explanation")
    if any(answer.count(mark) > caption.count(mark) + phrase.count(mark) for mark in MARKS):
        found.append("it is put in quotes or brackets, or explains something")
    added = content_words(" ".join(parts)) - content_words(caption)
    if len(added) > MOST_ADDED or "not" in added:
        found.append("it adds text of its own")
    if share_kept(answer, caption, phrase) < LEAST_KEPT:
        found.append("it leaves out much of the original sentence")
    return found


def share_kept(answer: str, caption: str, phrase: str) -> float:
    """Share of the caption's content words, gestures aside, that stand in the answer beside the phrase; 1 of none."""
    wanted = content_words(GESTURE.sub(" ", caption))
    return len(wanted & content_words(_whole(phrase).sub(" ", answer))) / len(wanted) if wanted else 1.0


def content_words(text: str) -> set[str]:
    """Lower-case words without articles, prepositions and the like."""
    return set(re.findall(r"\w+", text.lower())) - FUNCTION_WORDS


def share_with_phrase(captions: Sequence[str], phrase: str) -> float:
    """Share of captions that contain the gesture phrase, exactly as it is."""
    return sum(bool(_whole(phrase).search(caption)) for caption in captions) / len(captions)


def one_line(text: str) -> str:
    """The text with every run of white space, newlines included, folded to one blank."""
    return " ".join(text.split())


def _whole(phrase: str) -> re.Pattern:
    """The phrase as whole words: "wave" is not in "microwave"."""
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")
