"""The columns that a network reads, by name."""

# N hits, F features

import difflib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hepattn.data.error import DataError
from hepattn.data.trackml.clusters import CHARGE_COLUMNS, SHAPE_COLUMNS
from hepattn.data.trackml.event import Columns, Event
from hepattn.nn.normalise import Feature
from hepattn.physics.coordinates import azimuth, polar_angle, pseudorapidity, transverse

Formula = Callable[..., np.ndarray]

FORMULAS: Mapping[str, tuple[Formula, tuple[str, ...]]] = {
    "r": (transverse, ("x", "y")),
    "phi": (azimuth, ("x", "y")),
    "theta": (polar_angle, ("x", "y", "z")),
    "eta": (pseudorapidity, ("x", "y", "z")),
    "s": (lambda x, y, z: np.sqrt(x**2 + y**2 + z**2), ("x", "y", "z")),
    "u": (lambda x, y: x / (x**2 + y**2), ("x", "y")),
    "v": (lambda x, y: y / (x**2 + y**2), ("x", "y")),
    "lx": (lambda u: u, ("extent_u",)),
    "ly": (lambda v: v, ("extent_v",)),
    "lz": (lambda w: w, ("thickness",)),
    "leta": (pseudorapidity, SHAPE_COLUMNS[:3]),
    "lphi": (azimuth, SHAPE_COLUMNS[:2]),
}
"""Features that are computed: a function of columns, in float64."""

DIRECT = ("x", "y", "z", "volume_id", "layer_id", "module_id", *CHARGE_COLUMNS, *SHAPE_COLUMNS)
"""Features that are columns of the event."""

FEATURE_NAMES = tuple(sorted({*FORMULAS, *DIRECT}))


def check_features(features: Sequence[Feature]) -> None:
    """Refuse names that no event can have.

    Raises:
        DataError: If a feature is unknown; it says which are known and which is close.
    """
    for feature in features:
        if feature.name in FEATURE_NAMES:
            continue
        close = difflib.get_close_matches(feature.name, FEATURE_NAMES, n=1)
        raise DataError.of(
            "feature list",
            "name",
            found=repr(feature.name),
            expected=f"one of {', '.join(FEATURE_NAMES)}",
            remedy=f"did you mean {close[0]!r}?" if close else None,
        )


def missing_features(event: Event, features: Sequence[Feature]) -> list[str]:
    """Names of the features whose columns the event lacks."""
    return [feature.name for feature in features if _lacks(event.hits, feature.name)]


def hit_features(event: Event, features: Sequence[Feature]) -> np.ndarray:
    """The raw columns of the hits, in the order of the list.

    Args:
        event: The event.
        features: The wanted columns. One that the event lacks is filled with ``missing`` where
            that is set.

    Returns:
        (N, F) float32; computed in float64.

    Raises:
        DataError: If a feature is unknown, lacks its columns and has no ``missing`` value, or
            has a value that is not finite.
    """
    check_features(features)
    columns = np.empty((event.num_hits, len(features)), dtype=np.float32)
    for index, feature in enumerate(features):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            columns[:, index] = _column(event, feature)
        finite = np.isfinite(columns[:, index])
        if not finite.all():
            row = int(np.argmin(finite))
            raise DataError.of(
                event.name,
                f"feature {feature.name}",
                found=f"{columns[row, index]} at hit_id {event.hits['hit_id'][row]}",
                expected="finite values",
                remedy="leave the feature out or mend the hit",
            )
    return columns


def _lacks(hits: Columns, name: str) -> bool:
    return any(column not in hits for column in _inputs(name))


def _inputs(name: str) -> tuple[str, ...]:
    return FORMULAS[name][1] if name in FORMULAS else (name,)


def _column(event: Event, feature: Feature) -> np.ndarray | float:
    if _lacks(event.hits, feature.name):
        if feature.missing is not None:
            return feature.missing
        lacking = [name for name in _inputs(feature.name) if name not in event.hits]
        raise DataError.of(
            event.name,
            f"feature {feature.name}",
            found=f"no column {', '.join(lacking)}",
            expected="cells and, for shapes, detectors.csv beside the hits",
            remedy="add these files, leave the feature out, or set its `missing` value",
        )
    values = [event.hits[name].astype(np.float64) for name in _inputs(feature.name)]
    return FORMULAS[feature.name][0](*values) if feature.name in FORMULAS else values[0]
