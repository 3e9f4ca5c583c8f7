"""The results of `reproduce.py` as tables, pictures, and one page that needs nothing else.

table.md, table.csv, table.tex, results.json, grid.png (real, base and Hand1000 for the same prompts), losses.png,
report.html.
"""

import argparse
import base64
import csv
import html
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from core.runs.command_line import plain_arguments
from core.runs.files import atomic_file, read_lines
from core.runs.processes import say
from core.runs.software import git_commit, software
from hand1000.evaluation import METRICS, REAL, Score
from hand1000.generation import contact_sheet

PUBLISHED = {"FID": -28.599, "KID": -0.017, "FID-H": -30.208, "KID-H": -0.041, "HAND-CONF": 0.053}
"""Hand1000 minus Stable Diffusion in the paper's table, averaged over its gestures."""

GRID_PROMPTS, GRID_BLOCKS = 3, 3  # of each gesture on grid.png; gestures side by side
NOTE = (
    "Each figure is the mean over the seeds ({seeds}) with the mean of their 95 % intervals in brackets. Bold: better "
    "than the base model, and the two intervals do not overlap. The real photos are those of the test: what they score "
    "is the goal, which may lie below the base model's HAND-CONF. {extractor} The last line is the change that the "
    "paper reports, on other data and other features: only its direction can be compared."
)


class Row(NamedTuple):
    """One line of the table."""

    gesture: str
    variant: str
    scores: dict[str, Score]
    better: set[str]  # metrics that are better than the base's beyond the intervals


def write_report(
    args: argparse.Namespace, variants: Sequence, results: dict, costs: dict[str, dict], seconds: float
) -> None:
    """Write everything into `--output_dir`.

    Args:
        variants: the rows that `reproduce.py` drew, base first.
        results: `images` and `scores` by gesture, seed (None for the real photos) and the row's name.
        costs: seconds and peak memory of each step since its last start, by its name.
        seconds: since the command began.
    """
    folder, names = args.output_dir, [variant.name for variant in variants]
    rows = table(results, args.gestures, [REAL, *names])
    note = NOTE.format(seeds=", ".join(map(str, args.seeds)), extractor=extractor_note(args))
    write_text(folder / "table.md", f"{markdown(rows)}\n{note}\n")
    write_text(folder / "table.tex", latex(rows))
    write_csv(folder / "table.csv", rows)
    with atomic_file(folder / "grid.png") as temporary:
        comparison_grid(args, variants).save(temporary, format="PNG")
    with atomic_file(folder / "losses.png") as temporary:
        temporary.write_bytes(loss_curves(args, variants))
    facts: dict[str, Any] = {
        "machine": machine(),
        "software": software(),
        "git_commit": git_commit(),
        "this_run_s": round(seconds),
    }
    facts["stages"] = costs
    listed = [{"gesture": gesture, "seed": seed, "row": row, **cell} for (gesture, seed, row), cell in results.items()]
    content = {
        "settings": plain_arguments(args),
        **facts,
        "published_change": PUBLISHED,
        "results": nan_to_none(listed),
    }
    write_text(folder / "results.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "report.html", page(args, rows, note, facts))
    say(f"\n{markdown(rows)}\n{note}\n\n{folder / 'report.html'} has the pictures too")


# The table


def table(results: dict, gestures: Sequence[str], names: Sequence[str]) -> list[Row]:
    """Means over the seeds for each gesture and row, then over the gestures, with Hand1000's change from the base."""
    rows = []
    for gesture in gestures:
        for name in names:
            cells = [cell["scores"] for key, cell in results.items() if (key[0], key[2]) == (gesture, name)]
            rows.append(
                Row(gesture, name, {metric: mean_score([c[metric] for c in cells]) for metric in METRICS}, set())
            )
    if len(gestures) > 1:
        for name in names:
            cells = [row.scores for row in rows if row.variant == name]
            rows.append(Row("mean", name, {m: mean_score([c[m] for c in cells]) for m in METRICS}, set()))
    base = {row.gesture: row.scores for row in rows if row.variant == "base"}
    return [
        row._replace(better={m for m in METRICS if is_better(m, row.scores[m], base[row.gesture][m])})
        if row.variant != REAL
        else row
        for row in rows
    ]


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of values and of interval ends; the interval is so no narrower than that of a single seed."""
    return Score(*(float(np.mean(part)) for part in zip(*scores)))


def is_better(metric: str, score: Score, base: Score) -> bool:
    """Whether the whole interval lies on the better side of the base's."""
    return score.low > base.high if METRICS[metric] > 0 else score.high < base.low


def changes(rows: Sequence[Row]) -> dict[str, float]:
    """Hand1000 minus base in the last block of the table (the mean, or the only gesture)."""
    last = {row.variant: row.scores for row in rows if row.gesture == rows[-1].gesture}
    return {metric: last["Hand1000"][metric].value - last["base"][metric].value for metric in METRICS}


def cell_text(metric: str, score: Score) -> str:
    if math.isnan(score.value):
        return "–"
    show = (lambda x: f"{x:.0%}") if metric in ("hand found", "gesture accuracy") else number_text
    interval = "" if math.isnan(score.low) else f" [{show(score.low)}, {show(score.high)}]"
    return show(score.value) + interval


def number_text(value: float) -> str:
    """Three significant digits."""
    digits = 3 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def headings() -> list[str]:
    return [f"{metric} {'↑' if direction > 0 else '↓'}" for metric, direction in METRICS.items()]


def change_texts(values: dict[str, float]) -> list[str]:
    percent = ("hand found", "gesture accuracy")
    show = lambda m, v: f"{100 * v:+.0f} points" if m in percent else f"{v:+.3f}"  # noqa: E731
    return [show(m, values[m]) if m in values and not math.isnan(values[m]) else "–" for m in METRICS]


def lines_of(rows: Sequence[Row], bold: str) -> list[list[str]]:
    """The table's cells as text, `bold` holding "{}"."""
    lines = []
    for row in rows:
        texts = {metric: cell_text(metric, row.scores[metric]) for metric in METRICS}
        lines.append([row.gesture, row.variant, *(bold.format(t) if m in row.better else t for m, t in texts.items())])
    lines.append([rows[-1].gesture, "change", *change_texts(changes(rows))])
    lines.append(["paper", "change", *change_texts(PUBLISHED)])
    return lines


def markdown(rows: Sequence[Row]) -> str:
    lines = [["gesture", "model", *headings()], ["---"] * (2 + len(METRICS)), *lines_of(rows, "**{}**")]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(rows: Sequence[Row]) -> str:
    heads = ["gesture", "model", *(h.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for h in headings())]
    lines = [heads, *lines_of(rows, r"\textbf{{{}}}")]
    escaped = [[text.replace("%", r"\%").replace("_", r"\_").replace("–", "--") for text in line] for line in lines]
    body = [" & ".join(line) + r" \\" for line in escaped]
    start = r"\begin{tabular}{ll" + "r" * len(METRICS) + "}"
    return "\n".join([start, r"\hline", body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}", ""])


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line for each figure."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["gesture", "model", "metric", "value", "low_95", "high_95", "better_than_base"])
        for row in rows:
            for metric, score in row.scores.items():
                writer.writerow([row.gesture, row.variant, metric, *score, metric in row.better])


# Pictures


def comparison_grid(args: argparse.Namespace, variants: Sequence) -> Image.Image:
    """Real photo, base and Hand1000 of the same held-out prompts, a block for each gesture."""
    base, ours = variants[0], variants[1]
    blocks = []
    for gesture in args.gestures:
        names = read_lines(args.data_root / f"{gesture}_test_{ours.captioner}_file_name.txt")
        at = args.output_dir / gesture / f"seed_{args.seeds[0]}"
        folders = [args.data_root / f"{gesture}_test", *(at / row.folder / "pictures" for row in (base, ours))]
        rows = [[folder / name for folder in folders] for name in names[: min(GRID_PROMPTS, args.num_images or 99)]]
        blocks.append(contact_sheet(rows, ["real photo", "base", "Hand1000"]))
    width, height = (max(block.size[side] for block in blocks) for side in (0, 1))
    across = min(len(blocks), GRID_BLOCKS)
    grid = Image.new("RGB", (across * width, -(-len(blocks) // across) * height), "white")
    for place, block in enumerate(blocks):
        grid.paste(block, (place % across * width, place // across * height))
    return grid


def loss_curves(args: argparse.Namespace, variants: Sequence) -> bytes:
    """A PNG: each photo's mean loss in Stage II and III of Hand1000's first seed, one panel a gesture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(args.gestures), figsize=(1 + 3.6 * len(args.gestures), 3), squeeze=False)
    for panel, gesture in zip(panels[0], args.gestures):
        run = args.output_dir / gesture / f"seed_{args.seeds[0]}" / variants[1].folder / "run"
        with open(run / "losses.csv", encoding="utf-8") as file:
            records = list(csv.DictReader(file))
        for stage, label in (("embedding", "Stage II"), ("finetune", "Stage III")):
            photos: dict[str, list[float]] = {}
            for record in records:
                if record["stage"] == stage:
                    photos.setdefault(record["image"], []).append(float(record["loss"]))
            panel.plot([np.mean(losses) for losses in photos.values()], label=label, linewidth=1)
        panel.set(title=gesture, xlabel="photo", ylabel="mean loss")
        panel.legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


# Facts of the run


def machine() -> str:
    """Processor, memory and GPU."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and "model name" in (text := info.read_text()):
        cpu = text.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f"{os.cpu_count()} × {cpu}, {memory:.0f} GB, {', '.join(gpus) or 'no GPU'}"


def nan_to_none(content):
    """JSON has no NaN."""
    if isinstance(content, dict):
        return {key: nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [nan_to_none(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def extractor_note(args: argparse.Namespace) -> str:
    if args.feature_extractor:
        return (
            f"FID and KID on features of {args.feature_extractor.name}: compare them with each other, "
            "not with those of Inception."
        )
    return f"FID and KID with the protocol '{args.protocol}'."


# The page

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.8rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.4rem; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
td b { color: #06623b; }
img { max-width: 100%; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.pictures img { flex: 1 1 22rem; min-width: 0; max-width: 36rem; }
summary { cursor: pointer; margin: 0.7rem 0; }
"""


def page(args: argparse.Namespace, rows: Sequence[Row], note: str, facts: dict[str, Any]) -> str:
    """report.html: every picture is inside it, nothing is fetched."""
    gestures = ", ".join(args.gestures)
    lines = [["gesture", "model", *headings()], *lines_of(rows, "\0{}\1")]
    cells = [[html.escape(text).replace("\0", "<b>").replace("\1", "</b>") for text in line] for line in lines]
    head = "".join(f"<th>{text}</th>" for text in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{text}</td>" for text in line) + "</tr>\n" for line in cells[1:])
    sweeps = [
        args.output_dir / gesture / f"seed_{args.seeds[0]}" / "mu_sweep" / "grid.png" for gesture in args.gestures
    ]
    sheets = "".join(picture(sheet, f"mu sweep of {sheet.parts[-4]}") for sheet in sweeps if sheet.is_file())
    costs = facts["stages"]
    each = "".join(cost_line(name, [cost]) for name, cost in costs.items())
    stages = dict.fromkeys(stage_of(name) for name in costs)
    sums = "".join(cost_line(stage, [c for name, c in costs.items() if stage_of(name) == stage]) for stage in stages)
    sums += cost_line("all", list(costs.values()))
    cost_head = "<thead><tr><th>stage</th><th>runs</th><th>time</th><th>peak memory</th></tr></thead>"
    versions = ", ".join(f"{name} {number}" for name, number in facts["software"].items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Hand1000: {html.escape(gestures)}</title>
<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>Hand1000: {html.escape(gestures)}</h1>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
<p>{html.escape(note)}</p>
<h2>The same prompts, before and after</h2>
{picture(args.output_dir / "grid.png", "real photo, base model, Hand1000")}
<h2>From the gesture alone (mu 0) to the text alone (mu 1)</h2>
<div class="pictures">{sheets}</div>
<h2>Losses</h2>
{picture(args.output_dir / "losses.png", "losses of Stage II and III, photo by photo")}
<h2>Cost of the stages</h2>
<table>{cost_head}<tbody>
{sums}</tbody></table>
<details><summary>each run</summary><table>{cost_head}<tbody>
{each}</tbody></table></details>
<p>{html.escape(facts["machine"])}. {html.escape(versions)}. Commit {facts["git_commit"]}.</p>
</body></html>
"""


def stage_of(name: str) -> str:
    """The stage that a step belongs to, by its name."""
    return name.rpartition("/")[2]


def cost_line(name: str, costs: Sequence[dict[str, Any]]) -> str:
    """A line of the table of costs: the time of all of them, the highest peak."""
    seconds = sum(cost["seconds"] for cost in costs)
    time = f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
    places = {place: max(cost["peak_memory_gb"].get(place, 0) for cost in costs) for place in ("process", "gpu")}
    memory = ", ".join(f"{place} {size} GB" for place, size in places.items() if size)
    return f"<tr><td>{html.escape(name)}</td><td>{len(costs)}</td><td>{time}</td><td>{memory}</td></tr>\n"


def picture(path: Path, alt: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{content}">'


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
