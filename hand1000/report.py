"""The results of `reproduce.py` as tables, pictures, and one page that needs nothing else.

table.md, table.csv, table.tex, results.json, grid.png (real photo, base and Hand1000 for the same captions),
losses.png, report.html.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.metrics import table
from core.metrics.scores import REAL, Score
from core.metrics.table import TableRow
from core.runs import page
from core.runs.command_line import option_value
from core.runs.curves import Curve, save_curves
from core.runs.files import nan_to_none, write_json, write_text
from core.runs.processes import counted, say
from core.runs.run import read_losses
from core.runs.sheets import contact_sheet, save_png, side_by_side
from core.runs.software import provenance
from core.runs.steps import costs
from hand1000.experiment import ALL_METRICS, COMPARED, CellScores, Experiment
from hand1000.hyperparameters import LOSS_COLUMNS, Hyperparameters
from hand1000.trained import trained_model

PUBLISHED = {"FID": -28.599, "KID": -0.017, "FID-H": -30.208, "KID-H": -0.041, "HAND-CONF": 0.053}
"""Hand1000 minus Stable Diffusion in the paper's table, averaged over its gestures."""

GRID_PROMPTS, GRID_BLOCKS = 3, 3  # of each gesture on grid.png; gestures side by side
LABELS = ("gesture", "model")
Results = dict[tuple[str, int | None, str], CellScores]  # by gesture, seed (None: the real photos) and the row's name


def write_report(experiment: Experiment, settings: dict[str, Any]) -> None:
    """Write everything into the experiment's output folder and print the table.

    Args:
        settings: the arguments of the command, for results.json.

    Raises:
        UserError: a cell is not evaluated with these settings.
    """
    folder, results = experiment.output_dir, collect(experiment)
    rows = table_rows(results, experiment.gestures, [REAL, *(row.name for row in experiment.rows)])
    lines, note = lines_of(rows), note_of(experiment)
    text = f"{table.markdown(lines)}\n{note}\n"
    write_text(folder / "table.md", text)
    write_text(folder / "table.tex", table.latex(lines, len(LABELS)))
    table.write_csv(folder / "table.csv", LABELS, rows)
    write_results(experiment, results, settings)
    save_png(comparison_grid(experiment), folder / "grid.png")
    save_loss_curves(experiment, folder / "losses.png")
    write_text(folder / "report.html", report_page(experiment, results, lines, note))
    say(f"\n{text}\n{folder / 'report.html'} has the pictures too")


def collect(experiment: Experiment) -> Results:
    """The scores of everything that was evaluated."""
    found: Results = {}
    for gesture in experiment.gestures:
        found[gesture, None, REAL] = experiment.scores_of_real_photos(gesture)
    for cell in experiment.cells():
        found[cell.gesture, cell.seed, cell.row.name] = experiment.scores_of(cell)
    return found


def write_results(experiment: Experiment, results: Results, settings: dict[str, Any]) -> None:
    """results.json: every score of every cell, and all that they depend on."""
    cells = [dict(zip(("gesture", "seed", "row"), key)) | cell._asdict() for key, cell in results.items()]
    steps = {cost.name: cost._asdict() for cost in costs(experiment.records, experiment.steps())}
    content = {"settings": settings, **provenance(), "stages": steps, "published_change": PUBLISHED, "results": cells}
    write_json(experiment.output_dir / "results.json", nan_to_none(content))


# The table


def table_rows(results: Results, gestures: Sequence[str], names: Sequence[str]) -> list[TableRow]:
    """Means over the seeds for each gesture and row, then over the gestures, each marked against its base."""
    rows = []
    for gesture in gestures:
        for name in names:
            cells = [cell.scores for (of, _, row), cell in results.items() if (of, row) == (gesture, name)]
            rows.append(TableRow((gesture, name), mean_scores(cells)))
    if len(gestures) > 1:
        for name in names:
            rows.append(TableRow(("mean", name), mean_scores([row.scores for row in rows if row.labels[1] == name])))
    base = {row.labels[0]: row for row in rows if row.labels[1] == "base"}
    return [row if row.labels[1] == REAL else table.marked(row, base[row.labels[0]]) for row in rows]


def mean_scores(cells: Sequence[dict[str, Score]]) -> dict[str, Score]:
    return {metric: table.mean_score([scores[metric] for scores in cells]) for metric in ALL_METRICS}


def lines_of(rows: Sequence[TableRow]) -> list[list[table.Cell]]:
    """Headings, the rows, Hand1000's change from the base in the last block, and the paper's."""
    columns, last = table.columns_of(rows), rows[-1].labels[0]
    block = {row.labels[1]: row.scores for row in rows if row.labels[0] == last}
    changes = {metric: block["Hand1000"][metric].value - block["base"][metric].value for metric in ALL_METRICS}
    return [
        table.headings(LABELS, columns),
        *(table.cells(row, columns) for row in rows),
        table.change_cells((last, "change"), changes, columns),
        table.change_cells(("paper", "change"), PUBLISHED, columns),
    ]


def note_of(experiment: Experiment) -> str:
    """How to read the table."""
    extractor = table.extractor_note(experiment.protocol, experiment.feature_extractor)
    return (
        f"{table.seeds_note(experiment.seeds, 'pictures')}; with fewer than 10 pictures (or hands) a side there "
        f"is no interval. {table.MARKS_NOTE} The real "
        "photos are those of the test: what they score is the goal, which may lie below the base model's HAND-CONF. "
        f"{extractor} {attributes_note(experiment)}The last line is "
        "the change that the paper reports, on other data and other features: only its direction can be compared."
    )


def attributes_note(experiment: Experiment) -> str:
    """What "attributes kept" is, where it was asked for."""
    if not experiment.attribute_classifier:
        return ""
    from core.metrics.texts import load_attribute_classifier

    classifier = load_attribute_classifier(experiment.attribute_classifier)
    names = ", ".join(classifier.phrases)
    return (
        f"Attributes kept: the share of the captions' attributes ({names}) that a classifier finds in the pictures; a "
        f"guess finds {classifier.chance:.0%}. "
    )


# Pictures


def comparison_grid(experiment: Experiment) -> Image.Image:
    """Real photo, base, Hand1000 and what it is compared with, of the same captions; a block for each gesture."""
    base, ours, *others = experiment.rows
    shown, blocks = [base, ours, *(row for row in others if row.folder in COMPARED)], []
    for gesture in experiment.gestures:
        folders = [experiment.cell(gesture, experiment.seeds[0], row).pictures for row in shown]
        files = experiment.files(gesture, ours.captioner).test
        names, captions = files.read(files.enriched)
        count = min(GRID_PROMPTS, experiment.num_images or GRID_PROMPTS)
        rows = [[files.photos / name, *(folder / name for folder in folders)] for name in names[:count]]
        labels = ["real photo", *(f"{row.name}: {gesture}" if row == ours else row.name for row in shown)]
        blocks.append(contact_sheet(rows, column_labels=labels, row_labels=captions[:count]))
    return side_by_side(blocks, GRID_BLOCKS)


def save_loss_curves(experiment: Experiment, path: Path) -> None:
    """Each photo's mean loss in Stage II and III of Hand1000's first seed, one panel a gesture."""
    panels: dict[str, dict[str, Curve]] = {}
    for gesture in experiment.gestures:
        cell = experiment.cell(gesture, experiment.seeds[0], experiment.rows[1])
        rows = read_losses(cell.run / "losses.csv", LOSS_COLUMNS)
        panels[gesture] = {}
        for stage, label in (("embedding", "Stage II"), ("finetune", "Stage III")):
            losses: dict[str, list[float]] = {}
            for photo, of, _, loss in rows:
                if of == stage:
                    losses.setdefault(photo, []).append(float(loss))
            panels[gesture][label] = range(len(losses)), [float(np.mean(photo)) for photo in losses.values()]
    save_curves(path, panels, xlabel="photo", ylabel="mean loss")


# The page


def report_page(experiment: Experiment, results: Results, lines: Sequence[Sequence[table.Cell]], note: str) -> str:
    """report.html: every picture is inside it, nothing is fetched."""
    folder, steps = experiment.output_dir, experiment.steps()
    sweeps = [(gesture, experiment.mu_sweep(gesture)) for gesture in experiment.gestures]
    parts = [
        page.table(lines, len(LABELS)),
        page.paragraph(note),
        page.facts(settings_of(experiment, results)),
        page.heading("The same captions, before and after"),
        page.wide_picture(folder / "grid.png", "Photos of the test, the base model and Hand1000 for the same captions"),
        page.heading("From the gesture alone (mu 0) to the text alone (mu 1)"),
        page.pictures([page.picture(grid, f"Hand1000 for {gesture}") for gesture, grid in sweeps if grid.is_file()]),
        page.heading("Losses"),
        page.picture(folder / "losses.png", "Mean loss of Stage II and III, photo by photo"),
        *page.cost_section(experiment.records, steps),
    ]
    return page.page(f"Hand1000: {', '.join(experiment.gestures)}", parts)


def settings_of(experiment: Experiment, results: Results) -> dict[str, str]:
    """What a reader wants to know first."""
    ours = experiment.rows[1]
    runs = {gesture: experiment.cell(gesture, experiment.seeds[0], ours).run for gesture in experiment.gestures}
    photos = {gesture: trained_model(run).settings.get("photos", "?") for gesture, run in runs.items()}
    drawn = sorted({cell.images for (_, seed, _), cell in results.items() if seed is not None})
    seeds = counted(len(experiment.seeds), "seed")
    further = [f"{script}: {shlex.join(given)}" for script, given in experiment.further_args.items() if given]
    return {
        "base model": experiment.base_model,
        "photos to train on": ", ".join(f"{count} of {gesture}" for gesture, count in photos.items()),
        "pictures of each row": f"{', '.join(map(str, drawn))} for each gesture, {seeds}",
        "Lambda": f"{lambda_of(experiment):g} (share of the text in training)",
        "mu": f"{ours.mu:g} (share of the text in generation)",
        "captioner": ours.captioner,
        "further arguments": "; ".join(further),
    }


def lambda_of(experiment: Experiment) -> float:
    """What the trainings of Hand1000's own row were given as --Lambda, or the released value."""
    given = option_value([*experiment.further("train"), *experiment.rows[1].train_args], "--Lambda")
    return Hyperparameters().Lambda if given is None else float(given)
