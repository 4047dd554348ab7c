"""How the benchmarks report: goals, tables of ratios, JSON, plots."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
from rich.console import Console
from rich.table import Table

from measure import Seconds


class Goal(NamedTuple):
    """A figure and what it should be; no figure if the run was too small to tell."""

    name: str
    figure: float | None
    relation: Literal[">=", "<="]
    limit: float

    @property
    def reached(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.limit if self.relation == ">=" else self.figure <= self.limit

    def to_json(self) -> dict[str, object]:
        return self._asdict() | {"reached": self.reached}


def print_goals(goals: Sequence[Goal]) -> None:
    table = Table(title="goals")
    table.add_column("figure")
    for column in ("measured", "goal", "reached"):
        table.add_column(column, justify="right")
    sign = {">=": "≥", "<=": "≤"}
    for goal in goals:
        figure = "not measured" if goal.figure is None else f"{goal.figure:.3g}"
        reached = {True: "yes", False: "no", None: ""}[goal.reached]
        table.add_row(goal.name, figure, f"{sign[goal.relation]} {goal.limit:.3g}", reached)
    make_console().print(table)


def print_ratios(
    title: str,
    own: str,
    rows: Mapping[str, Seconds],
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Print how many times longer than one contender the others take.

    Args:
        title: What all rows have in common.
        own: The contender that the others are compared with.
        rows: Seconds of the contenders, by the row's label.
        extra: More cells of some rows, by column and the row's label.
    """
    peers = list(dict.fromkeys(name for seconds in rows.values() for name in seconds))
    peers.remove(own)
    extra = extra or {}
    table = Table()
    table.add_column("", no_wrap=True)
    for column in (f"{own}, ms", *extra, *(f"× {name}" for name in peers)):
        table.add_column(column, justify="right")
    for label, seconds in rows.items():
        ratios = (f"{seconds[x] / seconds[own]:.2f}" if x in seconds else "" for x in peers)
        more = (column.get(label, "") for column in extra.values())
        table.add_row(label, f"{1e3 * seconds[own]:.1f}", *more, *ratios)
    console = make_console()
    console.print(f"\n{title}")
    console.print(table)
    console.print("× peer: how many times longer the peer takes, medians of interleaved repeats")


def make_console() -> Console:
    return Console(width=120, highlight=False)


def write(result: dict, options: argparse.Namespace, name: str) -> Path:
    """Write the result as JSON; where its plot belongs."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return options.out / f"{name}.png"


def draw_lines(panels: Mapping[str, Mapping[int, Seconds]], path: Path, legend: str) -> None:
    """Draw time against tokens, a panel for each title and a line for each contender."""
    plt = _pyplot()
    from matplotlib.ticker import NullFormatter

    figure, all_axes = plt.subplots(1, len(panels), figsize=(9, 4), sharey=True, squeeze=False)
    for axes, (title, rows) in zip(all_axes[0], panels.items(), strict=True):
        for name in dict.fromkeys(name for seconds in rows.values() for name in seconds):
            points = [(n, seconds[name]) for n, seconds in rows.items() if name in seconds]
            axes.loglog(*zip(*points, strict=True), "o-", label=name)
        axes.set(title=title, xlabel="tokens")
        axes.set_xticks(list(rows), [f"{n:,}" for n in rows])
        axes.xaxis.set_minor_formatter(NullFormatter())  # no labels but those
        axes.grid(alpha=0.3)
    all_axes[0, 0].set_ylabel("time in s")
    all_axes[0, 0].legend(title=legend)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_bars(panels: Mapping[str, Seconds], path: Path, title: str) -> None:
    """Draw a bar for each contender, a panel for each title."""
    plt = _pyplot()
    height = 1 + 0.35 * sum(len(seconds) + 2 for seconds in panels.values())
    ratios = [len(seconds) + 1 for seconds in panels.values()]
    figure, all_axes = plt.subplots(
        len(panels), figsize=(7, height), squeeze=False, height_ratios=ratios
    )
    for axes, (label, seconds) in zip(all_axes[:, 0], panels.items(), strict=True):
        bars = axes.barh(list(seconds), [1e3 * x for x in seconds.values()])
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(label, fontsize="medium")
    all_axes[-1, 0].set_xlabel("time in ms")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _pyplot():  # noqa: ANN202
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
