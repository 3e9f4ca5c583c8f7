"""A page of results in one HTML file that needs nothing else: tables, pictures, facts, and what the steps cost."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from core.runs.software import git_commit, machine, software
from core.runs.steps import Cost, Step
from core.runs.steps import costs as costs_of

MINUTES_FROM = 600  # seconds
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
p, dd { overflow-wrap: anywhere; max-width: 60rem; }
table { border-collapse: collapse; font-size: 0.8rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.4rem; text-align: right; }
td { white-space: nowrap; }
th { vertical-align: bottom; }
.text { text-align: left; }
.better { color: #06623b; font-weight: bold; }
.worse { color: #a02c1c; font-style: italic; }
td small { display: block; color: #555; }
.better small, .worse small { color: inherit; font-weight: normal; }
img { max-width: 100%; }
figure { margin: 0; overflow-x: auto; }
.pictures figure { flex: 1 1 22rem; min-width: 0; max-width: 40rem; }
figcaption { font-size: 0.85rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; }
dd { margin: 0; }
@media (max-width: 50rem) {
  dl { grid-template-columns: 1fr; }
  dd { margin: 0 0 0.4rem 1rem; }
  .wide img { max-width: 50rem; }
}
pre { overflow-x: auto; background: #f4f4f4; padding: 0.7rem; font-size: 0.8rem; }
summary { cursor: pointer; margin: 0.7rem 0; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page; `parts` are HTML."""
    name, body = html.escape(title), "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title>
<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>{name}</h1>
{body}
</body></html>
"""


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def table(lines: Sequence[Sequence[tuple[str, str]]], labels: int) -> str:
    """A table of (text, class) cells; the first line holds the headings, the first `labels` columns are text.

    An interval, "0.83 [0.80, 0.86]", goes below its figure, which saves width.
    """

    def row(line: Sequence[tuple[str, str]], tag: str) -> str:
        texts = []
        for column, (text, mark) in enumerate(line):
            classes = f"{'text' if column < labels else ''} {mark}".strip()
            text = text.replace(" ↑", "\N{NO-BREAK SPACE}↑").replace(" ↓", "\N{NO-BREAK SPACE}↓")
            figure, bracket, interval = html.escape(text).partition(" [")
            below = f" <small>[{interval}</small>" if bracket else ""
            texts.append(f'<{tag} class="{classes}">{figure}{below}</{tag}>')
        return f"<tr>{''.join(texts)}</tr>"

    body = "\n".join(row(line, "td") for line in lines[1:])
    return f"<table><thead>{row(lines[0], 'th')}</thead><tbody>\n{body}</tbody></table>"


def picture(path: Path, caption: str) -> str:
    """A picture inside the page, with its caption below."""
    content = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{content}"><figcaption>{text}</figcaption></figure>'


def wide_picture(path: Path, caption: str) -> str:
    """One that is not shrunk to a narrow screen, but can be moved sideways there."""
    return f'<div class="wide">{picture(path, caption)}</div>'


def pictures(figures: Sequence[str]) -> str:
    """Pictures side by side where there is room."""
    return f'<div class="pictures">{"".join(figures)}</div>'


def facts(named: dict[str, str]) -> str:
    """A list of names and what they are, those that are not empty, and what made the page."""
    versions = ", ".join(f"{name} {number}" for name, number in software().items())
    given = {**named, "machine": machine(), "versions": versions, "commit": git_commit() or ""}.items()
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in given if text)
    return f"<dl>{rows}</dl>"


def details(summary: str, content: str) -> str:
    """Content that a click shows."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def cost_section(records: Path, steps: Sequence[Step]) -> list[str]:
    """What the steps of an experiment took, and the commands of its scripts."""
    scripts = [step.command() for step in steps if step.script]
    return [
        heading("Cost of the steps"),
        cost_tables(costs_of(records, steps)),
        details("the commands", f"<pre>{html.escape(chr(10).join(scripts))}</pre>"),
    ]


def cost_tables(costs: Sequence[Cost]) -> str:
    """What each stage took, and behind a click each step."""
    stages = dict.fromkeys(cost.stage for cost in costs)
    sums = [_cost_line(stage, [cost for cost in costs if cost.stage == stage]) for stage in stages]
    each = [_cost_line(cost.name, [cost]) for cost in costs]
    first = [("stage", ""), ("steps", ""), ("time", ""), ("peak memory", "")]
    everything = _cost_line("all", costs)
    return table([first, *sums, everything], 1) + details("each step", table([first, *each], 1))


def _cost_line(name: str, costs: Sequence[Cost]) -> list[tuple[str, str]]:
    """The time of all of them, and the highest peak."""
    seconds = sum(cost.seconds for cost in costs)
    time = f"{seconds:.0f} s" if seconds < MINUTES_FROM else f"{seconds / 60:.0f} min"
    memory = []
    for place in ("process", "gpu"):
        if peak := max((cost.peak_memory_gb.get(place, 0) for cost in costs), default=0):
            memory.append(f"{place} {peak} GB")
    return [(name, ""), (str(len(costs)), ""), (time, ""), (", ".join(memory), "")]
