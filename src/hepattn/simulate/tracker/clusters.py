"""From a track through a sensor to cells with charge, and back to a hit position."""

# N tracks through sensors, K cells

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.tracker.modules import Modules

Array = NDArray[np.floating]
Index = NDArray[np.integer]

MOYAL_WIDTH = 0.08
"""Width of the energy-loss fluctuation in a cell, relative to the mean."""
MOYAL_MEAN = 1.2703628454614782
"""Mean of a standard Moyal variable: Euler's constant + log 2."""


class Cells(NamedTuple):
    """Cells with charge, ordered by track.

    Attributes:
        track: Index of the track (K,).
        channel: Integer cell indices along u and v, from the module's lower corner (K, 2).
        value: Charge, as the path length in mm that releases it on average; 1 in digital sensors
            (K,).
    """

    track: Index
    channel: Index
    value: Array


def digitise(
    modules: Modules,
    module: Index,
    local: Array,
    local_direction: Array,
    threshold: float,
    rng: np.random.Generator,
) -> Cells:
    """Share the charge that a track leaves in a sensor among the cells along its path.

    The path is cut at every cell boundary that it crosses; each piece gives its cell a charge
    proportional to its length, with a Landau-like fluctuation. The cell with the largest charge
    is always kept, so that every track leaves a cluster.

    Args:
        modules: The modules of the detector.
        module: Index of each track's module (N,).
        local: Where the track crosses the middle of the sensor, u and v in mm (N, 2).
        local_direction: Its direction in the module's frame (N, 3).
        threshold: Smallest charge of a cell in mm of path.
        rng: Source of randomness.

    Returns:
        The cells.
    """
    pitch = modules.pitch[module]
    corner = _corner(modules, module)
    reach = 0.5 * modules.depth[module][:, None] * local_direction[:, :2] / local_direction[:, 2:]
    start = (local - reach - corner) / pitch  # in cells (N, 2)
    end = (local + reach - corner) / pitch
    length = modules.depth[module] / np.abs(local_direction[:, 2])

    track, low, high = _cut(start, end)
    middle = 0.5 * (low + high)[:, None]
    channel = np.floor(start[track] * (1 - middle) + end[track] * middle).astype(np.int64)
    charge = (high - low) * length[track] * _fluctuation(len(track), rng)

    num_channels = np.rint(-2 * corner / pitch).astype(np.int64)  # (N, 2)
    inside = ((channel >= 0) & (channel < num_channels[track])).all(axis=1)
    charge = np.where(inside, charge, -1.0)
    largest = np.full(len(module), -1.0)
    np.maximum.at(largest, track, charge)
    kept = inside & (charge > 0) & ((charge >= threshold) | (charge == largest[track]))
    value = np.where(modules.digital[module[track]], 1.0, charge)
    return Cells(track[kept], channel[kept], value[kept])


def cluster_positions(modules: Modules, module: Index, cells: Cells) -> Array:
    """Average the centres of a cluster's cells with their charge.

    Args:
        modules: The modules of the detector.
        module: Index of each track's module (N,).
        cells: The cells, at least one a track.

    Returns:
        Local u and v in mm (N, 2).
    """
    num = len(module)
    total = np.bincount(cells.track, cells.value, num)
    centre = [
        np.bincount(cells.track, cells.value * (cells.channel[:, axis] + 0.5), num) / total
        for axis in (0, 1)
    ]
    return _corner(modules, module) + np.stack(centre, axis=-1) * modules.pitch[module]


def _corner(modules: Modules, module: Index) -> Array:
    """Give the corner of the cell grid in mm: where both channels start at 0 (N, 2)."""
    return -np.stack([modules.half_u[module].max(axis=1), modules.half_v[module]], axis=-1)


def _cut(start: Array, end: Array) -> tuple[Index, Array, Array]:
    """Cut segments at integer coordinates.

    Args:
        start: Starting points in cells (N, 2).
        end: End points in cells (N, 2).

    Returns:
        For each piece: its segment and where it starts and ends, as fractions of the segment (K,).
    """
    num = len(start)
    below, above = np.floor(np.minimum(start, end)), np.floor(np.maximum(start, end))
    count = (above - below).astype(np.int64)  # boundaries crossed (N, 2)
    pieces = count.sum(axis=1) + 1
    segments, fractions = [np.arange(num)], [np.zeros(num)]
    for axis in (0, 1):
        segment = np.repeat(np.arange(num), count[:, axis])
        first = np.cumsum(count[:, axis]) - count[:, axis]
        boundary = below[segment, axis] + 1 + np.arange(len(segment)) - first[segment]
        origin = start[segment, axis]
        segments.append(segment)
        fractions.append((boundary - origin) / (end[segment, axis] - origin))
    segment = np.concatenate(segments)
    fraction = np.concatenate(fractions)
    order = np.argsort(segment + np.clip(fraction, 0.0, 1.0 - 1e-9))  # by segment, then fraction
    segment, low = segment[order], np.clip(fraction[order], 0.0, 1.0)
    high = np.append(low[1:], 1.0)
    high[np.cumsum(pieces) - 1] = 1.0
    return segment, low, high


def _fluctuation(num: int, rng: np.random.Generator) -> Array:
    """Draw charges relative to their mean from Moyal's approximation to Landau's distribution."""
    moyal = -np.log(rng.standard_normal(num) ** 2)
    return np.maximum(1 + MOYAL_WIDTH * (moyal - MOYAL_MEAN), 0.2)
