"""Gesture enrichment: captions that name the target gesture, exactly and once (paper, section "Dataset construction").

The released recipe sends one prompt to an LLM and trusts the answer. Here every answer is checked; a wrong one is asked
for again, and in the end repaired by a rule.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypedDict

from core.runs.errors import UserError
from hand1000.gestures import PHRASES, mentions_in_captions_of

Chat = list[dict[str, str]]  # messages, each with a role and a content
Ask = Callable[[Sequence[Chat]], list[str]]  # a language model: its answers, in the order of the chats

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
AT_ONCE, AFTER_A_RETRY, BY_THE_RULE = "right at once", "right after a retry", "by the rule"  # how a caption was made
MARKS = "\"“”‘’'`*«»<>()[]{}:"  # of quotes, brackets, mark-up and explanations
AND = "(?:and|while|or|with)"  # what joins a gesture to the rest


class EnrichedCaption(TypedDict):
    """An entry of the journal."""

    caption: str
    enriched: str
    how: str  # it was made: AT_ONCE, AFTER_A_RETRY, BY_THE_RULE


def enrich(captions: Sequence[str], phrase: str, ask: Ask | None, retries: int) -> list[dict[str, str]]:
    """An entry for each caption: `caption`, `enriched`, and `how` it was made.

    Args:
        ask: the language model; None leaves everything to the rule.
        retries: how often the model is asked again after a wrong answer, and told what is wrong.
    """
    chats = [[{"role": "user", "content": enrichment_prompt(caption, phrase)}] for caption in captions]
    enriched: dict[int, tuple[str, str]] = {}  # place of a caption: what it became, and how
    for attempt in range(1 + retries):
        places = [place for place in range(len(captions)) if place not in enriched]
        if ask is None or not places:
            break
        for place, answer in zip(places, ask([chats[place] for place in places])):
            answer = answer.encode("utf-8", "ignore").decode().strip()  # half a surrogate pair cannot be written
            wrong = problems(answer, captions[place], phrase)
            if not wrong:
                enriched[place] = answer, AFTER_A_RETRY if attempt else AT_ONCE
            else:
                again = f"That is not right: {'; '.join(wrong)}. Provide the modified sentence alone."
                chats[place] += [{"role": "assistant", "content": answer}, {"role": "user", "content": again}]
    entries = []
    for place, caption in enumerate(captions):
        text, how = enriched.get(place) or (enrich_by_rule(caption, phrase), BY_THE_RULE)
        entries.append({"caption": caption, "enriched": text, "how": how})
    return entries


def report_of(entries: Sequence[dict[str, str]], phrase: str) -> dict[str, float]:
    """How many captions were made in which way, by the entries of `enrich`, and the share of their words they kept."""
    made = [entry["how"] for entry in entries]
    kept = [share_kept(entry["enriched"], entry["caption"], phrase) for entry in entries]
    counts = {how: made.count(how) for how in (AT_ONCE, AFTER_A_RETRY, BY_THE_RULE)}
    return {**counts, "content words kept": sum(kept) / len(kept)}


def check_phrase(phrase: str | None, gesture: str) -> str:
    """The phrase.

    Raises:
        UserError: there is none, or one that a line of a list cannot hold.
    """
    if not phrase:
        known = ", ".join(sorted(PHRASES))
        raise UserError(f"no phrase is known for the gesture '{gesture}'; pass --phrase (known: {known})")
    if phrase != one_line(phrase):
        raise UserError(f"--phrase '{phrase}': has blanks at its ends, double blanks or newlines")
    return phrase


def enrichment_prompt(caption: str, phrase: str) -> str:
    """The released prompt for one caption."""
    return PROMPT.format(phrase=phrase, caption=caption.rstrip(". "))


def enrich_by_rule(caption: str, phrase: str) -> str:
    """The caption with the phrase in place of the first gesture that it names, or at its end, and no other gesture.

    Deterministic; a caption that is right already is returned unchanged.
    """
    caption = one_line(caption)
    named = mentions_in_captions_of(phrase)
    found = _whole(phrase).search(caption) or named.search(caption)
    if found:
        before, after = caption[: found.start()], caption[found.end() :]
    else:
        before = caption.rstrip(" ,.;:!?")
        after = caption[len(before) :].strip(" ,;:")
    other = rf"(?:{_whole(phrase).pattern}|{named.pattern})"
    for _ in range(3):  # removing one may bring the parts of another together
        before = re.sub(rf"{other}(?:,?\s+{AND}\b)?", "", one_line(before), flags=re.I)
        after = re.sub(rf"(?:,?\s*\b{AND})?\s*{other}", "", one_line(after), flags=re.I)
    text = one_line(f"{before} {phrase} {after}")
    text = re.sub(r"\s+([,.;!?)])", r"\1", text).replace("( ", "(")
    return re.sub(r",(?:\s*,)+", ",", text).rstrip(",")


def problems(answer: str, caption: str, phrase: str) -> list[str]:
    """What is wrong with an enriched caption, in words for the model that wrote it; nothing if it is right."""
    found = []
    if answer != one_line(answer):
        found.append("it is more than one line, or has odd blanks")
    parts = _whole(phrase).split(answer)
    if len(parts) != 2 or answer.count(phrase) != 1:
        found.append(f"it contains '{phrase}' {len(parts) - 1} times instead of once")
    others = mentions_in_captions_of(phrase).search(" | ".join(parts))
    if others:
        found.append(f"it also names the gesture '{others.group().strip()}'")
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
    """Share of the caption's content words, without gestures, that stand in the answer beside the phrase; 1 of none."""
    wanted = content_words(mentions_in_captions_of(phrase).sub(" ", caption))
    return len(wanted & content_words(_whole(phrase).sub(" ", answer))) / len(wanted) if wanted else 1.0


def content_words(text: str) -> set[str]:
    """Lower-case words without articles, prepositions and the like."""
    return set(re.findall(r"\w+", text.lower())) - FUNCTION_WORDS


def share_with_phrase(captions: Sequence[str], phrase: str) -> float:
    """Share of captions that contain the gesture phrase, exactly as it is."""
    return sum(bool(_whole(phrase).search(caption)) for caption in captions) / len(captions)


def one_line(text: str) -> str:
    """The text with single blanks in place of newlines and other white space."""
    return " ".join(text.split())


def _whole(phrase: str) -> re.Pattern:
    """The phrase as whole words: "wave" is not in "microwave"."""
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)")
