"""Curves of a training as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.runs.files import atomic_file

Curve = tuple[Sequence[float], Sequence[float]]  # x and y


def save_curves(path: Path, panels: Mapping[str, Mapping[str, Curve]], *, xlabel: str, ylabel: str) -> None:
    """Write a PNG with a panel for each title, all with one y axis, and in it a curve for each label."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = max(1, len(panels))
    figure, axes = plt.subplots(1, count, figsize=(1 + 3.3 * count, 3), squeeze=False, sharey=True)
    for axis, (title, curves) in zip(axes[0], panels.items()):
        for label, (x, y) in curves.items():
            axis.plot(x, y, label=label, linewidth=1)
        axis.set(title=title, xlabel=xlabel)
        axis.legend()
    axes[0][0].set(ylabel=ylabel)
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)
