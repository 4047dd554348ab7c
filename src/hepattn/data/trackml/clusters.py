"""The shape of each hit's cluster of cells."""

# N hits, C cells

import numpy as np

from hepattn.data.trackml.detector import Detector
from hepattn.data.trackml.event import Columns
from hepattn.physics.coordinates import azimuth, pseudorapidity

CHARGE_COLUMNS = ("num_cells", "charge", "charge_frac")
SHAPE_COLUMNS = ("extent_u", "extent_v", "thickness", "geta", "gphi")


def charge_columns(rows: np.ndarray, cells: Columns, num_hits: int) -> Columns:
    """Count the cells of each hit and sum their charge.

    Args:
        rows: Row of the hit of each cell (C,).
        cells: Columns of the cells file.
        num_hits: Number of hits.

    Returns:
        Columns (N,), 0 for hits without cells: ``num_cells``; ``charge``, the sum of ``value``
        (in its units); ``charge_frac``, the share of the largest cell in it.
    """
    charge = np.bincount(rows, weights=cells["value"], minlength=num_hits)
    largest = np.zeros(num_hits)
    np.maximum.at(largest, rows, cells["value"])
    share = np.divide(largest, charge, out=np.zeros(num_hits), where=charge > 0)
    num_cells = np.bincount(rows, minlength=num_hits)
    return _float32({"num_cells": num_cells, "charge": charge, "charge_frac": share})


def shape_columns(
    rows: np.ndarray, cells: Columns, hits: Columns, detector: Detector, label: str
) -> Columns:
    """Measure the cluster of each hit and the direction that it points along.

    The cluster spans ``extent_u`` by ``extent_v`` on the module and the module's ``thickness``,
    all in mm. The vector of these three is the direction of flight up to signs: a straight track
    that crosses the module fires the cells along it. ``geta`` and ``gphi`` are pseudorapidity
    and azimuth of that vector in the detector's axes.

    Args:
        rows: Row of the hit of each cell (C,).
        cells: Columns of the cells file.
        hits: Columns of the hits file.
        detector: The modules.
        label: Name of the hits file, for messages.

    Returns:
        Columns (N,), 0 for hits without cells.

    Raises:
        DataError: If a hit is on a module that the detector lacks.
    """
    modules = detector.rows(hits, label)
    num_hits = len(modules)
    touched = np.bincount(rows, minlength=num_hits) > 0
    local = np.zeros((num_hits, 3))
    for axis, channel in enumerate(("ch0", "ch1")):
        # float64 since the difference of two absurd channels overflows int64
        channels = cells[channel].astype(np.float64)
        low, high = np.full(num_hits, np.inf), np.full(num_hits, -np.inf)
        np.minimum.at(low, rows, channels)
        np.maximum.at(high, rows, channels)
        spanned = np.subtract(high, low, out=np.zeros(num_hits), where=touched) + touched
        local[:, axis] = spanned * detector.pitch[modules, axis]
    local[:, 2] = np.where(touched, detector.thickness[modules], 0.0)
    x, y, z = detector.to_global(modules, local).T
    columns = dict(zip(SHAPE_COLUMNS[:3], local.T, strict=True))
    columns |= {"geta": pseudorapidity(x, y, z), "gphi": azimuth(x, y)}
    return _float32(columns)


def _float32(columns: Columns) -> Columns:
    """Absurd values become infinite; the reader refuses them by name."""
    with np.errstate(over="ignore"):
        return {name: values.astype(np.float32) for name, values in columns.items()}
