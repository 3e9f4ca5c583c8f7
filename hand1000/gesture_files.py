"""The files of a gesture, which the stages hand to each other (the released code's convention)."""

from pathlib import Path
from typing import NamedTuple

from core.runs.errors import UserError
from core.runs.files import read_paired_lines

CAPTIONER = "BLIP2"  # whose captions are taken by default


class GestureFiles(NamedTuple):
    """Where everything about a gesture lies, for example GestureFiles(Path(), "call", "BLIP2")."""

    root: Path  # --data_root
    gesture: str
    captioner: str = CAPTIONER

    @property
    def photos(self) -> Path:
        """call/"""
        return self.root / self.gesture

    @property
    def names(self) -> Path:
        """call_BLIP2_file_name.txt: one file name a line, sorted."""
        return self.root / f"{self.gesture}_{self.captioner}_file_name.txt"

    @property
    def captions(self) -> Path:
        """call_BLIP2.txt: one caption a line, in the order of the names."""
        return self.root / f"{self.gesture}_{self.captioner}.txt"

    @property
    def enriched(self) -> Path:
        """call_BLIP2_modified.txt: the same captions, each naming the gesture."""
        return self.root / f"{self.gesture}_{self.captioner}_modified.txt"

    @property
    def feature(self) -> Path:
        """call.npy: the gesture feature, (63,) mean landmarks."""
        return self.root / f"{self.gesture}.npy"

    @property
    def selection(self) -> Path:
        """call_selection.json: what select_images.py chose."""
        return self.root / f"{self.gesture}_selection.json"

    @property
    def test(self) -> "GestureFiles":
        """The held-out photos and their lists: call_test/, call_test_BLIP2.txt, ..."""
        return self._replace(gesture=f"{self.gesture}_test")

    def read(self, texts: Path) -> tuple[list[str], list[str]]:
        """The file names, and the texts of a list: `captions` or `enriched`.

        Raises:
            UserError: a list is missing (and what makes it, or whose are there), or they do not agree.
        """
        for path in (self.names, texts):
            if not path.is_file():
                advice = "a script of captioning/ makes it from the photos"
                if path == self.enriched and self.captions.is_file():
                    advice = "captioning/enrich.py makes it"
                elif others := self.other_captioners():
                    advice = f"there are lists of {', '.join(others)}: pass --captioner {others[0]}"
                raise UserError(f"{path}: no such file; {advice}")
        return read_paired_lines(self.names, texts)

    def other_captioners(self) -> list[str]:
        """Whose lists of file names are there beside this captioner's; names with "_" may be another gesture's."""
        start, end = f"{self.gesture}_", "_file_name.txt"
        found = [path.name[len(start) : -len(end)] for path in self.root.glob(f"{start}*{end}")]
        return sorted(name for name in found if name != self.captioner and "_" not in name)
