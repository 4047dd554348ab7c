import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from data.make_trackml import rows_of
from hepattn.data.trackml import CsvEvents, hit_features, open_events
from hepattn.nn.normalise import Feature

NAMES = [
    *("num_cells", "charge", "charge_frac", "extent_u", "extent_v", "thickness"),
    *("lx", "ly", "lz", "leta", "lphi", "geta", "gphi"),
]


def eta_phi(x: float, y: float, z: float) -> tuple[float, float]:
    return -math.log(math.tan(math.atan2(math.hypot(x, y), z) / 2)), math.atan2(y, x)


def cluster(cells: list[Mapping[str, str]], module: Mapping[str, str]) -> list[float]:
    """The features of one hit, written out."""
    if not cells:
        return [0.0] * len(NAMES)
    charges = [float(cell["value"]) for cell in cells]
    rows = [int(cell["ch0"]) for cell in cells]
    columns = [int(cell["ch1"]) for cell in cells]
    size = [
        (max(rows) - min(rows) + 1) * float(module["pitch_u"]),
        (max(columns) - min(columns) + 1) * float(module["pitch_v"]),
        2 * float(module["module_t"]),
    ]
    turned = [
        sum(float(module[f"rot_{axis}{local}"]) * size[i] for i, local in enumerate("uvw"))
        for axis in "xyz"
    ]
    shares = max(charges) / sum(charges)
    return [
        *(len(cells), sum(charges), shares, *size, *size),
        *(*eta_phi(*size), *eta_phi(*turned)),
    ]


def check(folder: Path, name: str) -> None:
    source = open_events(folder)
    event = source.read(source.names.index(name))
    modules = {
        (row["volume_id"], row["layer_id"], row["module_id"]): row
        for row in rows_of(folder / "detectors.csv.gz")
    }
    cells = defaultdict(list)
    for row in rows_of(folder / f"{name}-cells.csv.gz"):
        cells[row["hit_id"]].append(row)
    expected = [
        cluster(cells[row["hit_id"]], modules[row["volume_id"], row["layer_id"], row["module_id"]])
        for row in rows_of(folder / f"{name}-hits.csv.gz")
    ]
    found = hit_features(event, [Feature(name) for name in NAMES])
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_cluster_shapes_agree_with_a_loop_over_hits(raw_events: Path) -> None:
    check(raw_events, "event000001000")


@pytest.mark.data
def test_cluster_shapes_of_the_real_event_agree_with_a_loop_over_hits(data_dir: Path) -> None:
    check(data_dir / "trackml", "event000000001")


def test_a_hit_without_cells_has_features_of_zero(raw_events: Path) -> None:
    event = open_events(raw_events).read(0)
    found = hit_features(event, [Feature(name) for name in NAMES])
    bare = event.hits["num_cells"] == 0
    assert 0 < bare.sum() < len(bare) / 2
    assert (found[bare] == 0).all()


def test_charge_needs_no_table_of_modules(one_event: Path) -> None:
    complete = open_events(one_event).read(0)
    (one_event / "detectors.csv").unlink()
    event = open_events(one_event).read(0)
    assert "extent_u" not in event.hits
    for name in ("num_cells", "charge", "charge_frac"):
        np.testing.assert_array_equal(event.hits[name], complete.hits[name])


def test_the_normal_of_a_barrel_module_points_outwards(raw_events: Path) -> None:
    source = CsvEvents(raw_events)
    assert source.detector is not None
    hits = source.read(0).hits
    rows = source.detector.rows(hits, "hits")
    normal = source.detector.to_global(rows, np.tile([0.0, 0.0, 1.0], (len(rows), 1)))
    radius = np.hypot(hits["x"], hits["y"])
    cosine = (normal[:, 0] * hits["x"] + normal[:, 1] * hits["y"]) / radius
    assert (cosine > math.cos(math.pi / 16) - 1e-6).all()  # half a module's width
