"""The results of `attentionhand.reproduce` as tables, pictures, and one page that needs nothing else.

table.md, table.csv, table.tex, results.json, grid.png (text, mesh image, photo, and every row's picture), losses.png,
report.html.
"""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from attentionhand.data import read_modalities
from attentionhand.experiment import BASE, REAL, ROWS, Experiment, run_folder
from attentionhand.published import METHODS, PUBLISHED, PUBLISHED_COLUMNS, USER_PREFERENCE, VIEWS
from attentionhand.runs import LOSS_COLUMNS
from core.metrics import table
from core.metrics.scores import DIRECTIONS, NO_SCORE, Score
from core.metrics.table import TableRow
from core.runs import page
from core.runs.curves import Curve, save_curves
from core.runs.files import nan_to_none, write_json, write_text
from core.runs.processes import counted, say
from core.runs.run import read_losses
from core.runs.sheets import contact_sheet, save_png
from core.runs.software import provenance
from core.runs.steps import costs

LABELS = ("model",)
VIEW_LABELS = ("global view", "local view", "weights")
OUR_VIEWS = {  # the rows of our table of views, in which no row has the text attention stage
    BASE: ("–", "–", "–"),
    "controlnet": ("yes", "–", "–"),
    "local_only": ("–", "yes", "–"),
    "without_tas": ("yes", "yes", "shared"),
    "separate_weights": ("yes", "yes", "separate"),
}
PAPERS_VIEWS = {name: (*views[:2], "shared") for name, views in OUR_VIEWS.items()} | {  # as published
    "separate_weights": OUR_VIEWS["separate_weights"],
    "attentionhand": OUR_VIEWS["without_tas"],
}
VIEWS_WANTED = ("local_only", "separate_weights")  # without one of these rows there is no table of views
GRID_LABELS = 6  # on grid.png
SMOOTHED = 50  # points of a loss curve
PAPER_NOTE = (
    "The paper's figures come from another base model, other data and, for FID and KID, other features: only the "
    "order of the rows can be compared. How its MSE-2D and MSE-3D are defined is not known; the landmark errors here "
    "are other measures of the same thing, in hand sizes. Uni-ControlNet is in no library, so that it has no row here."
)
VIEWS_NOTE = (
    "Here all rows are without the text attention stage, so that they differ in their views only; the paper's rows "
    "with both views have it. Separate weights: one stage trained on each view, and the mean of their residuals when "
    "pictures are drawn; the paper does not say how it draws with them."
)
Results = dict[tuple[int, str], dict[str, Score]]  # by the seed and the row's folder


def write_report(experiment: Experiment, settings: dict[str, Any]) -> None:
    """Write everything into the experiment's output folder and print the table.

    Args:
        settings: the arguments of the command, for results.json.

    Raises:
        UserError: a cell is not evaluated with these settings.
    """
    folder = experiment.output_dir
    results = {(cell.seed, cell.row.folder): experiment.scores_of(cell) for cell in experiment.cells()}
    rows = table_rows(experiment, results)
    tables = tables_of(rows, note_of(experiment))
    parts = [(f"## {heading}", table.markdown(lines).rstrip("\n"), note) for heading, lines, _, note in tables]
    text = "\n\n".join(part for named in parts for part in named if part) + "\n"
    write_text(folder / "table.md", text)
    write_text(folder / "table.tex", "\n".join(table.latex(lines, labels) for _, lines, labels, _ in tables))
    table.write_csv(folder / "table.csv", LABELS, list(rows.values()))
    write_results(experiment, results, settings)
    save_png(comparison_grid(experiment), folder / "grid.png")
    save_loss_curves(experiment)
    write_text(folder / "report.html", report_page(experiment, tables))
    say(f"\n{text}\n{folder / 'report.html'} has the pictures too")


def write_results(experiment: Experiment, results: Results, settings: dict[str, Any]) -> None:
    """results.json: every score of every cell, and all that they depend on."""
    cells: list[dict[str, Any]] = [{"seed": None, "row": REAL, "scores": experiment.scores_of_real_photos()}]
    cells += [{"seed": seed, "row": row, "scores": scores} for (seed, row), scores in results.items()]
    steps = {cost.name: cost._asdict() for cost in costs(experiment.records, experiment.steps())}
    published = {name: dict(zip(PUBLISHED_COLUMNS, figures)) for name, figures in PUBLISHED.items()}
    content = {"settings": settings, **provenance(), "steps": steps, "published": published, "results": cells}
    write_json(experiment.output_dir / "results.json", nan_to_none(content))


# The tables


def table_rows(experiment: Experiment, results: Results) -> dict[str, TableRow]:
    """Means over the seeds of the real photos and of each row, marked against the base."""
    rows = {REAL: TableRow((REAL,), experiment.scores_of_real_photos())}
    for folder in experiment.rows:
        seeds = [scores for (_, row), scores in results.items() if row == folder]
        means = {
            metric: table.mean_score([scores.get(metric, NO_SCORE) for scores in seeds])
            for metric in DIRECTIONS
            if metric in seeds[0]
        }
        rows[folder] = TableRow((ROWS[folder].name,), means)
    return {name: row if name == REAL else table.marked(row, rows[BASE]) for name, row in rows.items()}


NamedTable = tuple[str, list[list[table.Cell]], int, str]  # heading, lines, columns of labels, note


def tables_of(rows: dict[str, TableRow], note: str) -> list[NamedTable]:
    """Ours and the paper's, of the methods and, where they were run, of the views.

    Args:
        note: how to read ours.
    """
    methods = lines_of(rows, {name: row.labels for name, row in rows.items()}, LABELS)
    tables = [
        ("Text-to-hand image generation", methods, len(LABELS), note),
        ("The same in the paper", published_methods(), len(LABELS), PAPER_NOTE),
    ]
    if any(row in rows for row in VIEWS_WANTED):
        ours = lines_of(rows, {name: labels for name, labels in OUR_VIEWS.items() if name in rows}, VIEW_LABELS)
        tables.append(("Visual attention stage: which views", ours, len(VIEW_LABELS), ""))
        tables.append(("The same in the paper", published_views(), len(VIEW_LABELS), VIEWS_NOTE))
    return tables


def lines_of(
    rows: dict[str, TableRow], labels: dict[str, tuple[str, ...]], headings: Sequence[str]
) -> list[list[table.Cell]]:
    """Headings, then the rows in `labels` under those labels."""
    chosen = [rows[name]._replace(labels=own) for name, own in labels.items()]
    columns = table.columns_of(chosen)
    return [table.headings(headings, columns), *(table.cells(row, columns) for row in chosen)]


def published_methods() -> list[list[table.Cell]]:
    lines = [[*LABELS, *PUBLISHED_COLUMNS, "User Pref. (%) ↑"]]
    for name in METHODS:
        label = ROWS[name].name if name in ROWS else name
        lines.append([label, *PUBLISHED[name], USER_PREFERENCE[name]])
    return [[table.Cell(text) for text in line] for line in lines]


def published_views() -> list[list[table.Cell]]:
    lines = [[*VIEW_LABELS, *PUBLISHED_COLUMNS], *([*PAPERS_VIEWS[name], *PUBLISHED[name]] for name in VIEWS)]
    return [[table.Cell(text) for text in line] for line in lines]


def note_of(experiment: Experiment) -> str:
    """How to read our tables."""
    extractor = table.extractor_note(experiment.protocol, experiment.feature_extractor)
    return (
        f"{table.seeds_note(experiment.seeds, 'labels')}; with fewer than 10 pictures, or crops of hands, FID and "
        "KID have no interval. "
        f"{table.MARKS_NOTE} The real photos are those of the test: what MediaPipe finds in them is the goal; they are "
        f"not compared with themselves. Landmark errors and PCK are in hand sizes. {extractor}"
    )


# Pictures


def comparison_grid(experiment: Experiment):
    """Evenly chosen labels: mesh image, photo, and the picture of every row of the first seed, over the text."""
    cells = [experiment.cell(experiment.seeds[0], row) for row in experiment.rows]
    numbers = np.unique(np.linspace(0, len(experiment.test) - 1, GRID_LABELS).round().astype(int)).tolist()
    chosen = [(number, experiment.test[number]) for number in numbers]
    rows = [
        [sample.mesh, *([sample.rgb] if sample.rgb else []), *(cell.picture(number) for cell in cells)]
        for number, sample in chosen
    ]
    labels = ["mesh image", "photo", *(cell.row.name for cell in cells)]
    return contact_sheet(rows, column_labels=labels, row_labels=[sample.text for _, sample in chosen])


def save_loss_curves(experiment: Experiment) -> None:
    """losses.png: the running mean of both views' losses, a panel for each training of the first seed."""
    panels: dict[str, dict[str, Curve]] = {}
    for run in experiment.trainings:
        folder = run_folder(experiment.output_dir / f"seed_{experiment.seeds[0]}", run)
        rows = read_losses(folder / "losses.csv", LOSS_COLUMNS)
        curves = panels[ROWS[run].name if run in ROWS else run] = {}
        for column, label in enumerate(("global view", "local view"), start=1):
            losses = [float(row[column]) for row in rows if row[column]]
            window = max(1, len(losses) // SMOOTHED)
            if losses:
                smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
                curves[label] = range(window - 1, len(losses)), smooth.tolist()
    save_curves(experiment.output_dir / "losses.png", panels, xlabel="step", ylabel="loss")


# The page


def report_page(experiment: Experiment, tables: Sequence[NamedTable]) -> str:
    """report.html: every picture is inside it, nothing is fetched."""
    folder, steps = experiment.output_dir, experiment.steps()
    parts = []
    for heading, lines, labels, note in tables:
        parts += [page.heading(heading), page.table(lines, labels), *([page.paragraph(note)] if note else [])]
    parts += [
        page.heading("What was done"),
        page.facts(settings_of(experiment)),
        page.heading("The same labels, drawn by every row"),
        page.wide_picture(folder / "grid.png", "Mesh image and photo of labels of the test, and what each row draws"),
        page.heading("Losses"),
        page.wide_picture(folder / "losses.png", "Running means of the noise losses of the views that are trained on"),
        *page.cost_section(experiment.records, steps),
    ]
    return page.page("AttentionHand", parts)


def settings_of(experiment: Experiment) -> dict[str, str]:
    """What a reader wants to know first."""
    further = [f"{script}: {shlex.join(given)}" for script, given in experiment.further_args.items() if given]
    train = len(read_modalities(experiment.data_dir / "modalities.json"))
    return {
        "base model": experiment.base_model,
        "trained on": f"{counted(train, 'sample')} of {experiment.data_dir}",
        "test": f"{counted(len(experiment.test), 'label')} of {experiment.test_dir}, one picture each",
        "seeds": ", ".join(map(str, experiment.seeds)),
        "resolution": f"{experiment.resolution} pixels a side",
        "further arguments": "; ".join(further),
    }
