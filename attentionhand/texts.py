"""The texts of a data set, written anew by a captioner: each names a hand, which the text attention stage needs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attentionhand.data import Sample
from core.runs.errors import UserError
from core.runs.files import write_text

HAND_PHRASE = "with a hand in view"  # what a caption without a hand word gets


def distinct_photos(samples: Sequence[Sample]) -> list[Path]:
    """The photos of a data set, each once, in the order of their first sample."""
    return list(dict.fromkeys(sample.rgb for sample in samples if sample.rgb))


def write_texts(samples: Sequence[Sample], texts: Mapping[Path, str]) -> None:
    """Write the text of each sample's photo into the sample's text file.

    Args:
        texts: by photo.

    Raises:
        UserError: two photos share a text file.
    """
    wanted: dict[Path, str] = {}
    for sample in samples:
        if sample.rgb and sample.text_file:
            text = wanted.setdefault(sample.text_file, texts[sample.rgb])
            if text != texts[sample.rgb]:
                raise UserError(
                    f"{sample.text_file}: is the text of two photos; give each sample a text file of its own"
                )
    for path, text in wanted.items():
        write_text(path, f"{text}\n")
