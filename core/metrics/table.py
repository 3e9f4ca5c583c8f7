"""Tables of scores as text: Markdown, LaTeX, CSV, and lines for a page, with what is better or worse than the base."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.metrics.scores import DIRECTIONS, NO_SCORE, Score
from core.runs.files import atomic_file, spreadsheet_text

SHARES = (
    "hand found",
    "gesture accuracy",
    "PCK@0.1",
    "PCK@0.2",
    "attributes kept",
)  # metrics that are shown in percent
NOTHING = "–"
BETTER, WORSE = "better", "worse"
MARKS_NOTE = "Bold: better than the base model, italic: worse, and the two 95 % intervals do not overlap."


def extractor_note(protocol: str, feature_extractor: Path | None) -> str:
    """How to read the FID and KID of a table."""
    if feature_extractor is None:
        return f"FID and KID with the protocol '{protocol}'."
    return (
        f"FID and KID on features of {feature_extractor.name}: compare them with each other, not with those of "
        "Inception."
    )


def seeds_note(seeds: Sequence[int], over: str) -> str:
    """What a figure of a table stands for; `over` is what the intervals are taken over, such as "labels"."""
    if len(seeds) == 1:
        return f"Each figure is of one seed ({seeds[0]}), with its 95 % interval over {over} in brackets"
    named = ", ".join(map(str, seeds))
    return (
        f"Each figure is the mean over the seeds {named}, with the mean of their 95 % intervals over {over} in brackets"
    )


class TableRow(NamedTuple):
    """One line of a table."""

    labels: tuple[str, ...]  # gesture and model
    scores: dict[str, Score]
    marks: dict[str, str] = {}  # "better" or "worse" for metrics that differ from the base's beyond the intervals


class Cell(NamedTuple):
    """A cell's text, and "better", "worse" or ""."""

    text: str
    mark: str = ""


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of values and of interval ends; the interval is so no narrower than that of a single seed."""
    return Score(*(float(np.mean(part)) for part in zip(*scores)))


def marked(row: TableRow, base: TableRow) -> TableRow:
    """The row with its marks: metrics whose whole interval lies on one side of the base's."""
    marks = {}
    for metric, direction in DIRECTIONS.items():
        ours, theirs = (one.scores.get(metric, NO_SCORE) for one in (row, base))
        if ours.low > theirs.high:
            marks[metric] = BETTER if direction > 0 else WORSE
        elif ours.high < theirs.low:
            marks[metric] = WORSE if direction > 0 else BETTER
    return row._replace(marks=marks)


def columns_of(rows: Sequence[TableRow]) -> list[str]:
    """The metrics that at least one row has."""
    return [m for m in DIRECTIONS if any(not math.isnan(row.scores.get(m, NO_SCORE).value) for row in rows)]


def headings(labels: Sequence[str], columns: Sequence[str]) -> list[Cell]:
    return [Cell(text) for text in (*labels, *(f"{name} {'↑' if DIRECTIONS[name] > 0 else '↓'}" for name in columns))]


def cells(row: TableRow, columns: Sequence[str]) -> list[Cell]:
    scores = [row.scores.get(metric, NO_SCORE) for metric in columns]
    marks = [row.marks.get(metric, "") for metric in columns]
    return [Cell(label) for label in row.labels] + [
        Cell(score_text(metric, score), mark) for metric, score, mark in zip(columns, scores, marks)
    ]


def change_cells(labels: Sequence[str], changes: dict[str, float], columns: Sequence[str]) -> list[Cell]:
    """A line of differences: "+43 points" for shares, "-27.992" for others."""
    return [Cell(label) for label in labels] + [Cell(change_text(m, changes.get(m, math.nan))) for m in columns]


def score_text(metric: str, score: Score) -> str:
    """ "0.834 [0.804, 0.862]", in percent for shares."""
    if math.isnan(score.value):
        return NOTHING
    value, low, high = (percent(x) if metric in SHARES else number(x) for x in score)
    return value if math.isnan(score.low) else f"{value} [{low}, {high}]"


def change_text(metric: str, change: float) -> str:
    if math.isnan(change):
        return NOTHING
    return f"{100 * change:+.0f} points" if metric in SHARES else f"{change:+.3f}"


def percent(value: float) -> str:
    return f"{value:.0%}"


def number(value: float) -> str:
    """Three significant digits."""
    digits = 3 if value == 0 or math.isnan(value) else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


# As text


def markdown(lines: Sequence[Sequence[Cell]]) -> str:
    """A Markdown table; the first line holds the headings."""
    marks = {BETTER: "**{}**", WORSE: "*{}*", "": "{}"}
    first, *others = [[marks[cell.mark].format(cell.text.replace("|", r"\|")) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (first, ["---"] * len(first), *others))


def latex(lines: Sequence[Sequence[Cell]], labels: int) -> str:
    """A LaTeX tabular whose first `labels` columns are text."""
    marks = {BETTER: r"\textbf{{{}}}", WORSE: r"\textit{{{}}}", "": "{}"}
    first, *others = [" & ".join(marks[cell.mark].format(latex_text(cell.text)) for cell in line) for line in lines]
    start = r"\begin{tabular}{" + "l" * labels + "r" * (len(lines[0]) - labels) + "}"
    body = [f"{line} \\\\" for line in (first, *others)]
    return "\n".join([start, r"\hline", body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}", ""])


def latex_text(text: str) -> str:
    """The text with LaTeX's special characters escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", NOTHING: "--"}
    special |= {character: f"\\{character}" for character in "%_&#${}"}
    special |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(special.get(character, character) for character in text)


def write_csv(path: Path, labels: Sequence[str], rows: Sequence[TableRow]) -> None:
    """One line for each figure."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*labels, "metric", "value", "low_95", "high_95", "better_than_base", "worse_than_base"])
        for row in rows:
            for metric, score in row.scores.items():
                mark = row.marks.get(metric, "")
                writer.writerow([*map(spreadsheet_text, row.labels), metric, *score, mark == BETTER, mark == WORSE])
