"""Trees of the liquid-xenon detector: units, validity, faults."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import uproot

from hepattn.data.error import DataError
from hepattn.data.xec import open_xec

Rewrite = Callable[..., Path]
TRUTH = ("energyTruth", "timeTruth", "uvwTruth", "emiVec", "time_min_used")


def branches(path: Path) -> dict[str, np.ndarray]:
    with uproot.open(path) as file:
        return file["tree"].arrays(library="np")


def set_value(place: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[place] = value
        return values

    return change


def test_values_come_in_the_units_of_the_batch(xec_files: list[Path]) -> None:
    stored = branches(xec_files[0])
    batch = open_xec(xec_files[0]).read(0, 8)
    known = stored["npho"] < 9e9
    assert torch.equal(batch.valid, torch.from_numpy(known))
    assert 0 < (~known).sum() < 0.2 * known.size
    np.testing.assert_array_equal(batch.photons[batch.valid], stored["npho"][known])
    timed = known & (stored["npho"] >= 100) & (stored["relative_time"] < 9e9)
    assert torch.equal(batch.time_valid, torch.from_numpy(timed))
    ns = 1e9 * stored["relative_time"][timed].astype(np.float64)
    np.testing.assert_allclose(batch.time[batch.time_valid], ns, rtol=1e-6)
    np.testing.assert_allclose(batch.energy, 1e3 * stored["energyTruth"], rtol=1e-6)
    np.testing.assert_array_equal(batch.position, stored["uvwTruth"])
    np.testing.assert_array_equal(batch.direction, stored["emiVec"])
    first = 1e9 * stored["time_min_used"].astype(np.float64)
    np.testing.assert_allclose(batch.first_time, first)
    np.testing.assert_allclose(batch.start, stored["timeTruth"] - first, atol=1e-5)
    np.testing.assert_array_equal(batch.event, stored["event"])


def test_what_is_not_known_is_zero(xec_files: list[Path]) -> None:
    batch = open_xec(xec_files).read(0, 14)
    assert (batch.photons[~batch.valid] == 0).all()
    assert (batch.time[~batch.time_valid] == 0).all()
    assert not (batch.time_valid & ~batch.valid).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e10, -np.inf])
def test_a_number_that_is_none_makes_a_sensor_invalid(rewrite: Rewrite, value: float) -> None:
    path = rewrite(npho=set_value((2, 7), value))
    batch = open_xec(path).read(0, 8)
    assert not batch.valid[2, 7]
    assert not batch.time_valid[2, 7]
    assert batch.photons[2, 7] == 0
    assert batch.photons.isfinite().all()


def test_a_time_that_is_none_leaves_the_photons(rewrite: Rewrite, xec_files: list[Path]) -> None:
    bright = int(open_xec(xec_files).read(0, 1).photons.argmax())
    path = rewrite(relative_time=set_value((0, bright), np.nan))
    batch = open_xec(path).read(0, 1)
    assert batch.valid[0, bright]
    assert not batch.time_valid[0, bright]


def test_min_photons_decides_which_times_count(xec_files: list[Path]) -> None:
    few, many = (open_xec(xec_files, min_photons=x).read(0, 14) for x in (1000.0, 20.0))
    assert (few.photons[few.time_valid] >= 1000).all()
    assert few.time_valid.sum() < many.time_valid.sum()


def test_files_are_one_source(xec_files: list[Path]) -> None:
    source = open_xec(xec_files[0].parent)
    assert source.num_events == 14
    batch = source.read(5, 11)  # three of the first file, three of the second
    assert batch.index.tolist() == list(range(5, 11))
    assert batch.event.tolist() == list(range(5, 11))
    assert source.block_ends[-1] == 14
    assert 8 in source.block_ends


def test_the_first_events_stay_the_same_source(xec_files: list[Path]) -> None:
    some = open_xec(xec_files, num_events=10)
    assert some.num_events == 10
    assert some.block_ends.tolist()[-1] == 10
    assert some.fingerprint() != open_xec(xec_files).fingerprint()
    assert open_xec(xec_files, num_events=8).files == (xec_files[0],)
    with pytest.raises(DataError, match=r"events: found 14, expected at least 15"):
        open_xec(xec_files, num_events=15)


def test_rows_outside_the_source_are_refused(xec_files: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"rows 3 to 15 must lie within 14 events"):
        open_xec(xec_files).read(3, 15)


def test_events_without_truth_can_be_read(rewrite: Rewrite) -> None:
    batch = open_xec(rewrite(**dict.fromkeys(TRUTH))).read(0, 8)
    assert batch.energy.isnan().all()
    assert batch.position.shape == (8, 3)
    assert batch.position.isnan().all()
    assert batch.valid.any()


@pytest.mark.parametrize("branch", ["npho", "relative_time", "run", "event", "uvwTruth"])
def test_a_missing_branch_is_named(rewrite: Rewrite, branch: str) -> None:
    path = rewrite(**{branch: None})
    with pytest.raises(DataError, match=rf"changed.root: branch {branch}: found none"):
        open_xec(path)


def test_a_branch_of_another_size_is_named(rewrite: Rewrite) -> None:
    path = rewrite(npho=lambda values: values[:, :4092])
    with pytest.raises(DataError, match=r"branch npho: found 4092 values an event, expected 4760"):
        open_xec(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_truth_that_is_not_finite_names_the_event(rewrite: Rewrite, value: float) -> None:
    source = open_xec(rewrite(energyTruth=set_value((3,), value)))
    with pytest.raises(DataError, match=r"event 3: energyTruth: found \[?(nan|inf)"):
        source.read(0, 8)


def test_simulated_events_and_data_do_not_mix(rewrite: Rewrite, xec_files: list[Path]) -> None:
    data = rewrite(**dict.fromkeys(TRUTH))
    with pytest.raises(DataError, match=r"found no truth, expected the truth, as in"):
        open_xec([xec_files[0], data])


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_file_is_named(xec_files: list[Path], tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.root"
    path.write_bytes(xec_files[0].read_bytes()[:size])
    with pytest.raises(DataError, match=r"(?s)cut.root: contents: found .*expected a complete"):
        open_xec(path).read(0, 8)


def test_another_tree_is_named(xec_files: list[Path]) -> None:
    with pytest.raises(DataError, match=r"tree: found only .*, expected events"):
        open_xec(xec_files, tree="events")


def test_a_path_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found none, expected files that end in .root"):
        open_xec(tmp_path)
    with pytest.raises(DataError, match=r"found an empty list"):
        open_xec([])
