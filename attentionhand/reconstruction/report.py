"""The experiment's results as tables and one page: the errors of every row on every test, the published table beside.

table.md, table.csv, table.tex, results.json, grid.png (the same labels, drawn by each generator), report.html.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attentionhand.data import paths_of
from attentionhand.reconstruction.evaluate import ALL, LOWER_IS_BETTER
from attentionhand.reconstruction.experiment import Experiment, Row
from core.metrics import table
from core.metrics.scores import Score
from core.metrics.table import Cell, TableRow
from core.runs import page
from core.runs.errors import UserError
from core.runs.files import atomic_file, read_lines, write_json, write_text
from core.runs.processes import counted, say
from core.runs.run import read_json
from core.runs.sheets import contact_sheet, save_png
from core.runs.software import machine, provenance
from core.runs.steps import costs, is_complete

PUBLISHED = {  # by generator: MPVPE / RRVE / MRRPE in mm of InterWild on HIC, Re:InterHand (wild), InterHand2.6M (lab)
    "Stable Diffusion": ("16.97 / 32.33 / 41.11", "18.78 / 29.00 / 32.09", "14.03 / 25.70 / 33.95"),
    "Uni-ControlNet": ("16.19 / 27.03 / 32.10", "17.08 / 24.91 / 27.23", "12.01 / 22.12 / 31.08"),
    "T2I-Adapter": ("16.06 / 25.67 / 36.53", "16.99 / 25.87 / 29.88", "12.20 / 21.48 / 30.93"),
    "ControlNet": ("15.43 / 24.11 / 30.75", "15.12 / 23.60 / 26.17", "11.53 / 20.99 / 26.24"),
    "AttentionHand (w/o TAS)": ("14.85 / 22.47 / 29.99", "14.65 / 21.57 / 25.89", "10.75 / 20.89 / 26.02"),
    "AttentionHand (w/ TAS)": ("14.74 / 21.10 / 29.26", "13.95 / 19.94 / 22.05", "10.62 / 19.09 / 25.74"),
    "InterWild, before": ("15.30 / 21.35 / 31.26", "13.99 / 20.07 / 22.38", "11.52 / 19.77 / 26.87"),
}
PUBLISHED_HEADINGS = ("published: pictures by", "HIC (wild)", "Re:InterHand (wild)", "InterHand2.6M (lab)")
PUBLISHED_NOTE = (
    "The published table: MPVPE / RRVE / MRRPE in mm of InterWild. Other labels, networks, metrics and base "
    "model: only the order of the rows can be compared."
)
LABELS = ("test", "trained on", "pictures")
LABEL_SCORES = ("hand found", "landmark error 2D", "landmark error 3D", "PCK@0.2")  # of attentionhand.evaluate
GRID_LABELS = 6  # on grid.png
Results = dict[tuple[str, str], dict[str, Score]]  # by test and row


def write_report(experiment: Experiment, settings: dict[str, Any]) -> None:
    """Write everything into the experiment's output folder and print the table.

    Args:
        settings: the arguments of the command, for results.json.

    Raises:
        UserError: a row is not evaluated yet.
    """
    folder, results = experiment.output_dir, collect(experiment)
    rows = [*experiment.rows(), *experiment.sweep_rows()]
    lines, kept, note = lines_of(experiment, results, rows), kept_lines(experiment), note_of(experiment)
    parts = [table.markdown(lines), note, table.markdown(kept), table.markdown(published_lines()), PUBLISHED_NOTE]
    text = "\n".join(part.rstrip("\n") + "\n" for part in parts)
    write_text(folder / "table.md", text)
    write_text(folder / "table.tex", table.latex(lines, len(LABELS)))
    write_csv(folder / "table.csv", experiment, results, rows)
    steps = {cost.name: cost._asdict() for cost in costs(experiment.records, experiment.steps())}
    facts = {**provenance(), "steps": steps}
    each = {
        f"{row.folder}/seed_{seed}/{test}": read_scores(experiment.scores(row, seed, test))[0]
        for row in rows
        for seed in experiment.seeds
        for test in experiment.tests
    }
    write_json(
        folder / "results.json",
        {
            "settings": {**settings, "test": {name: str(path) for name, path in experiment.tests.items()}},
            **facts,
            "results": each,
        },
    )
    save_png(generator_grid(experiment), folder / "grid.png")
    write_text(folder / "report.html", report_page(experiment, lines, kept, note))
    say(f"\n{text}\n{folder / 'report.html'} has the pictures too")


def collect(experiment: Experiment) -> Results:
    """The mean over the seeds of each metric and of its interval's ends, by test and row."""
    results: Results = {}
    for row in [*experiment.rows(), *experiment.sweep_rows()]:
        for test in experiment.tests:
            for seed in experiment.seeds:
                if not is_complete(experiment.records, experiment.evaluate_step(row, seed, test)):
                    scores = experiment.scores(row, seed, test)
                    raise UserError(f"{scores}: not evaluated with these settings; run the stage evaluate")
            seeds = [read_scores(experiment.scores(row, seed, test))[1] for seed in experiment.seeds]
            results[test, row.name] = {
                metric: table.mean_score([scores[metric] for scores in seeds]) for metric in LOWER_IS_BETTER
            }
    return results


def read_scores(path: Path) -> tuple[dict[str, Any], dict[str, Score]]:
    """What `evaluate --json` wrote, and its scores of all pictures. Raises UserError where it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path}: not evaluated yet; run the stage evaluate")
    content = read_json(path, f"{path}: damaged")
    try:
        found = content["scores"][ALL]
        scores = {
            name: Score(*(math.nan if one is None else float(one) for one in found[name])) for name in LOWER_IS_BETTER
        }
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged (no scores in it); remove it and run the stage evaluate again") from None
    return content, scores


# The tables


def lines_of(experiment: Experiment, results: Results, rows: Sequence[Row]) -> list[list[Cell]]:
    """Headings, then a block of rows for each test, marked where better or worse than the lab alone."""
    metrics = [name for name in LOWER_IS_BETTER if any(not math.isnan(of[name].value) for of in results.values())]
    lines = [
        [Cell(text) for text in (*LABELS, *(f"{name} {'↓' if LOWER_IS_BETTER[name] else '↑'}" for name in metrics))]
    ]
    for test in experiment.tests:
        base = results[test, rows[0].name]
        for row in rows:
            scores = results[test, row.name]
            cells = [
                Cell(score_text(scores[name]), mark_of(scores[name], base[name], LOWER_IS_BETTER[name]))
                for name in metrics
            ]
            counts = " + ".join(str(len(read_lines(folder / "modalities.json"))) for folder in row.data)
            lines.append([Cell(test), Cell(row.name), Cell(counts), *cells])
    return lines


def score_text(score: Score) -> str:
    if math.isnan(score.value):
        return table.NOTHING
    return f"{table.number(score.value)} [{table.number(score.low)}, {table.number(score.high)}]"


def mark_of(score: Score, base: Score, lower_is_better: bool) -> str:
    """Better or worse than the base where the two intervals do not overlap, else ""."""
    if score.high < base.low:
        return table.BETTER if lower_is_better else table.WORSE
    if score.low > base.high:
        return table.WORSE if lower_is_better else table.BETTER
    return ""


def kept_lines(experiment: Experiment) -> list[list[Cell]]:
    """How well the generated hands follow their labels, and how many pictures each threshold keeps."""
    labels = ("generator", "threshold", "pictures kept")
    lines = [table.headings(labels, LABEL_SCORES)]
    for one in experiment.chosen:
        for threshold in sorted({experiment.threshold, *(experiment.sweep if one is experiment.ours else [])}):
            kept = experiment.kept(one, threshold)
            counts = read_json(kept / "export.json", f"{kept}: damaged")
            found = read_json(kept.with_suffix(".json"), f"{kept}: damaged")["scores"]
            scores = {name: Score(*(math.nan if x is None else x for x in found[name])) for name in LABEL_SCORES}
            texts = (one.name, f"{threshold:g}", f"{counts['accepted']} of {counts['of']}")
            lines.append(table.cells(TableRow(texts, scores), LABEL_SCORES))
    return lines


def published_lines() -> list[list[Cell]]:
    rows = [[Cell(name), *map(Cell, values)] for name, values in PUBLISHED.items()]
    return [[Cell(text) for text in PUBLISHED_HEADINGS], *rows]


def note_of(experiment: Experiment) -> str:
    """How to read the table."""
    unit = read_scores(experiment.scores(experiment.rows()[0], experiment.seeds[0], next(iter(experiment.tests))))[0][
        "unit"
    ]
    seconds = sum(cost.seconds for cost in costs(experiment.records, experiment.steps()))
    minutes = counted(round(seconds / 60), "minute")
    return (
        f"Errors in {unit}. {table.seeds_note(experiment.seeds, 'test labels')}: they do not hold the chance of "
        "another generator. Every row makes the same number of training steps. Bold: better than the lab alone, "
        "italic: worse, and the intervals do not overlap. Pictures are the lab's plus those that were added. "
        f"The times of all steps add up to {minutes} on {machine()}."
    )


def write_csv(path: Path, experiment: Experiment, results: Results, rows: Sequence[Row]) -> None:
    """One line for each figure."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["test", "trained_on", "metric", "value", "low_95", "high_95"])
        for test in experiment.tests:
            for row in rows:
                for metric, score in results[test, row.name].items():
                    writer.writerow([test, row.name, metric, *score])


# Pictures and the page


def generator_grid(experiment: Experiment) -> Image.Image:
    """Evenly chosen labels: the picture from the lab, its mesh image, and the first picture of each generator."""
    photos, meshes = (paths_of(experiment.lab, key) for key in ("rgb", "mesh"))
    numbers = np.unique(np.linspace(0, len(photos) - 1, GRID_LABELS).round().astype(int))
    rows = [
        [photos[number], meshes[number], *(experiment.drawn(one, number) for one in experiment.chosen)]
        for number in numbers
    ]
    return contact_sheet(rows, column_labels=["lab", "mesh", *(one.name for one in experiment.chosen)])


def report_page(
    experiment: Experiment, lines: Sequence[Sequence[Cell]], kept: Sequence[Sequence[Cell]], note: str
) -> str:
    """report.html: every picture is inside it, nothing is fetched."""
    steps, seed = experiment.steps(), experiment.seeds[0]
    rows = experiment.rows()
    sheets = [
        page.picture(experiment.scores(row, seed, test).with_suffix(".png"), f"{row.name}: test {test}, seed {seed}")
        for test in experiment.tests
        for row in (rows[0], next(row for row in rows if row.folder == experiment.ours.folder))
    ]
    facts = {
        "base model": experiment.base_model,
        "lab": str(experiment.lab),
        "wild": str(experiment.wild),
        "pictures of each label": str(experiment.num_samples),
    }
    parts = [
        page.table(lines, len(LABELS)),
        page.paragraph(note),
        page.heading("Do the generated hands follow their labels?"),
        page.table(kept, 2),
        page.heading("The published table"),
        page.table(published_lines(), 1),
        page.paragraph(PUBLISHED_NOTE),
        page.facts(facts),
        page.heading("The same labels, drawn by each generator"),
        page.picture(experiment.output_dir / "grid.png", "Pictures from the lab, their meshes, and what was drawn"),
        page.heading("Test pictures: predicted and true skeletons"),
        page.pictures(sheets),
        *page.cost_section(experiment.records, steps),
    ]
    return page.page("3D hand reconstruction with generated pictures", parts)
