"""Model cards: the README.md of a run folder, whose header the Hugging Face hub reads.

The papers say what stands in a card (`hand1000.model_card`, `attentionhand.model_card`); here is how it is written.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.diffusion.model_path import is_hub_id, is_single_file
from core.runs.files import write_text

CARD, SAMPLES = "README.md", "samples.png"  # of a run folder; the pictures are there only if they were asked for
TAGS = ("diffusers", "stable-diffusion", "stable-diffusion-diffusers", "text-to-image", "diffusers-training")
RAIL = "creativeml-openrail-m"
LICENCES = {  # of base models that are most used here, by their hub ids in small letters
    "compvis/stable-diffusion-v1-4": RAIL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": RAIL,
    "runwayml/stable-diffusion-v1-5": RAIL,
}
# What Markdown, GitHub's or the hub's, may take for markup; a _ within a word is none.
ACTIVE = re.compile(r"([\\`*{}\[\]()<>#|~$&!@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
TENTHS = 10
NOT_SHOWN = re.compile(r".*(_sha256|_fingerprint)|validation_prompts")


def model_card(
    title: str, sections: Sequence[tuple[str, str]], *, base_model: str, licence: str | None, tags: Sequence[str]
) -> str:
    """A card: the header in YAML, then Markdown.

    Args:
        title: any text.
        sections: heading and Markdown of each, in which texts from outside have gone through `plain`.
        base_model: hub id or path; the header names the former only.
        licence: of the base model, as the hub names it; None where it is not known.
        tags: beside those of every Stable Diffusion.
    """
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        license=licence,
        base_model=base_model if is_hub_id(base_model) else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, *tags],
    )
    parts = [f"---\n{header.to_yaml()}\n---\n", f"# {plain(title)}\n"]
    parts += [f"## {heading}\n\n{text.strip()}\n" for heading, text in sections if text.strip()]
    return "\n".join(parts)


def write_card(folder: Path, card: str) -> None:
    """Write a run folder's card; one that already says the same is left alone."""
    path = folder / CARD
    if not path.is_file() or path.read_bytes() != card.encode():
        write_text(path, card)


def plain(text: Any) -> str:
    """Any text, so that it stands in a card as it is: on one line, nothing in it taken for markup."""
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    return ACTIVE.sub(r"\\\1", line)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table of any texts."""
    lines = [[plain(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_table(settings: dict[str, Any]) -> str:
    """A run's settings, but for hashes and what was not asked for."""
    rows = [
        (name, value)
        for name, value in settings.items()
        if value not in (None, False) and not NOT_SHOWN.fullmatch(name)
    ]
    return table(("setting", "value"), rows)


def loss_table(losses: Mapping[str, Sequence[float]]) -> str:
    """Means of the losses of each kind over the first and the last tenth of its steps."""
    rows = []
    for name, values in losses.items():
        if values:
            tenth = max(1, len(values) // TENTHS)
            first, last = (sum(part) / tenth for part in (values[:tenth], values[-tenth:]))
            rows.append((name, len(values), f"{first:.4f}", f"{last:.4f}"))
    explained = "Each step has other noise and another timestep, so single losses say little; all are in `losses.csv`."
    return f"{table(('loss', 'steps', 'mean of the first tenth', 'of the last'), rows)}\n\n{explained}" if rows else ""


def software_line(software: dict[str, Any]) -> str:
    """Versions, on one line."""
    return ", ".join(f"{plain(name)} {plain(version)}" for name, version in software.items())


def loader_of(base: str) -> str:
    """diffusers' method that loads a base model."""
    return "from_single_file" if is_single_file(base) else "from_pretrained"


def licence_of(base_model: str) -> str | None:
    """The licence of a base model as the hub names it: of known ones, or what its own card on this machine says."""
    if known := LICENCES.get(base_model.lower()):
        return known
    from huggingface_hub import ModelCard, try_to_load_from_cache

    if is_single_file(base_model):
        return None
    card = try_to_load_from_cache(base_model, CARD) if is_hub_id(base_model) else Path(base_model) / CARD
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except Exception:  # a card of any kind: not UTF-8, no YAML, no header
        return None
    return licence if isinstance(licence, str) else None


def licence_text(base_model: str, licence: str | None) -> str:
    """What a reader is told of the licence."""
    if licence:
        of_weights = f"That of the base model, {plain(base_model)}: {plain(licence)}."
    else:
        of_weights = (
            f"That of the base model, {plain(base_model)}, which this training does not know: look it up before you "
            "pass the weights on."
        )
    return f"{of_weights} The training code is under the MIT licence."
