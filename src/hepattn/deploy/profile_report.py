"""Tables, files and figures of profiles."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from hepattn.deploy.layer_profile import LayerProfile, NetworkProfile
from hepattn.deploy.roofline import Roofline
from hepattn.training.figures import new_figure

NETWORK = "(network itself)"  # what no layer in it does


def layer_row(layer: LayerProfile, profile: NetworkProfile, roofline: Roofline) -> dict[str, Any]:
    """All numbers of a layer, flat; times in ms, sizes in MB, operations in MFLOP.

    ``of_roofline`` is the least time that the machine's limits allow over the measured one;
    above one where caches spare the memory. It and ``bound`` are None for a layer with operations
    whose FLOPs are not known.

    Args:
        layer: The layer.
        profile: The profile that it is in.
        roofline: Limits of the machine.
    """
    total = sum(each.forward_seconds for each in profile.layers)
    row: dict[str, Any] = {
        "layer": layer.name or NETWORK,
        "kind": layer.kind,
        "calls": layer.num_calls,
        "share": layer.forward_seconds / total,
    }
    for direction in ("forward", "backward"):
        seconds = getattr(layer, f"{direction}_seconds")
        if seconds is None:
            continue
        counts = getattr(layer, direction)
        known = counts.num_uncounted == 0
        least = roofline.seconds(counts.flops, counts.moved)
        row |= {
            f"{direction}_ms": 1e3 * seconds,
            f"{direction}_mflop": counts.flops / 1e6,
            f"{direction}_moved_mb": counts.moved / 1e6,
            f"{direction}_allocated_mb": counts.allocated / 1e6,
            f"{direction}_intensity": counts.flops / counts.moved if counts.moved else 0.0,
            f"{direction}_bound": roofline.bound(counts.flops, counts.moved) if known else None,
            f"{direction}_of_roofline": least / seconds if seconds and known else None,
        }
    return row


def profile_content(profile: NetworkProfile, roofline: Roofline) -> dict[str, Any]:
    """All numbers of a profile, for JSON."""
    layers = profile.layers
    content: dict[str, Any] = {
        "forward_ms": 1e3 * profile.forward_seconds,
        "forward_watched_ms": 1e3 * sum(layer.forward_seconds for layer in layers),
        "forward_mflop": sum(layer.forward.flops for layer in layers) / 1e6,
        "not_counted": profile.unknown,
        "layers": [layer_row(layer, profile, roofline) for layer in layers],
    }
    if all(layer.backward_seconds is not None for layer in layers):
        content["backward_ms"] = 1e3 * sum(layer.backward_seconds or 0.0 for layer in layers)
        content["backward_mflop"] = sum(layer.backward.flops for layer in layers) / 1e6
    return content


def write_csv(contents: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the layers of several profiles as one table.

    Args:
        contents: What `profile_content` made, by the name of the network.
        path: File to write.
    """
    rows = [
        {"network": name, **row} for name, content in contents.items() for row in content["layers"]
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def print_profile(name: str, content: Mapping[str, Any], num_rows: int) -> None:
    """Print the layers that take most time.

    Args:
        name: Name of the network.
        content: What `profile_content` made of it.
        num_rows: How many layers.
    """
    rows = sorted(content["layers"], key=_milliseconds, reverse=True)
    table = Table(title=f"{name}: {content['forward_ms']:.2f} ms forward")
    table.add_column("layer")
    table.add_column("kind")
    columns = ("calls", "fwd ms", "share", "bwd ms", "MFLOP", "MB made", "FLOP/B", "bound")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows[:num_rows]:
        backward = row.get("backward_ms")
        table.add_row(
            row["layer"],
            row["kind"],
            str(row["calls"]),
            f"{row['forward_ms']:.2f}",
            f"{100 * row['share']:.1f} %",
            "–" if backward is None else f"{backward:.2f}",
            f"{row['forward_mflop']:.1f}",
            f"{row['forward_allocated_mb']:.2f}",
            f"{row['forward_intensity']:.1f}",
            row["forward_bound"] or "?",
        )
    if len(rows) > num_rows:
        rest = rows[num_rows:]
        share = sum(row["share"] for row in rest)
        table.add_row(f"{len(rest)} more", "", "", "", f"{100 * share:.1f} %", *[""] * 5)
    console = Console(width=140)
    console.print(table)
    if content["not_counted"]:
        console.print(f"FLOPs not counted of: {', '.join(content['not_counted'])}")


def plot_layers(contents: Mapping[str, Mapping[str, Any]], num_rows: int = 20) -> Figure:
    """Draw the time of the layers that take most, a bar for each network and direction.

    Args:
        contents: What `profile_content` made, by the name of the network; the base first.
        num_rows: How many layers.
    """
    base = next(iter(contents.values()))
    names = [row["layer"] for row in sorted(base["layers"], key=_milliseconds, reverse=True)]
    names = names[:num_rows]
    figure, (axis,) = new_figure(panel=(9.0, 1.5 + 0.4 * len(names)))
    bars = {}
    for network, content in contents.items():
        rows = {row["layer"]: row for row in content["layers"]}
        for direction in ("forward", "backward"):
            column = f"{direction}_ms"
            if any(column in row for row in rows.values()):
                values = [rows.get(name, {}).get(column, 0.0) for name in names]
                bars[f"{network}, {direction}"] = values
    height = 0.8 / len(bars)
    places = np.arange(len(names))
    for index, (label, values) in enumerate(bars.items()):
        axis.barh(places + index * height, values, height, label=label)
    axis.set_yticks(places + 0.4 - height / 2, names, fontsize="x-small")
    axis.tick_params(axis="y", which="both", left=False, right=False)
    axis.invert_yaxis()
    axis.set(xlabel="time [ms], without the layers inside")
    axis.legend(fontsize="x-small")
    return figure


def plot_roofline(contents: Mapping[str, Mapping[str, Any]], roofline: Roofline) -> Figure:
    """Draw the rate of each layer against its arithmetic intensity, below the machine's limits.

    Args:
        contents: What `profile_content` made, by the name of the network.
        roofline: Limits of the machine.
    """
    figure, (axis,) = new_figure(panel=(7.5, 5.5))
    intensity = np.geomspace(1e-2, 1e3, 100)
    limit = np.minimum(intensity * roofline.bytes_per_second, roofline.flops_per_second)
    axis.plot(intensity, limit / 1e9, color="black", label="measured limit")
    for network, content in contents.items():
        for direction, marker in (("forward", "o"), ("backward", "x")):
            rows = [row for row in content["layers"] if row.get(f"{direction}_mflop")]
            rates = [row[f"{direction}_mflop"] / row[f"{direction}_ms"] for row in rows]
            axis.plot(
                [row[f"{direction}_intensity"] for row in rows],
                rates,  # MFLOP a ms are GFLOP a second
                marker,
                label=f"{network}, {direction}" if rows else None,
            )
    axis.set(xlabel="FLOP a byte", ylabel="GFLOP a second", xscale="log", yscale="log")
    axis.legend(fontsize="x-small")
    return figure


def _milliseconds(row: Mapping[str, Any]) -> float:
    return row["forward_ms"] + row.get("backward_ms", 0.0)
