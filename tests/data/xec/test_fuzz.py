"""Damaged files give events or a DataError, never anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uproot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepattn.data import DataError
from hepattn.data.xec import XecBatch, open_xec
from hepattn.simulate.xec import XecConfig
from hepattn.simulate.xec.make import make_events
from hepattn.simulate.xec.write import write_tree

NUM_EVENTS = 2
BRANCHES = ("npho", "relative_time", "run", "event")
TRUTH = ("energyTruth", "timeTruth", "uvwTruth", "emiVec", "time_min_used")
FUZZ = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    made = make_events(XecConfig(), NUM_EVENTS)
    return {name: made[name] for name in (*BRANCHES, *TRUTH)}


@pytest.fixture(scope="module")
def file(columns: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two events; each example damages a copy."""
    path = tmp_path_factory.mktemp("fuzz") / "events.root"
    write_tree(path, [columns])
    return path


def outcome(path: Path) -> XecBatch | None:
    """The events after damage, or None for a DataError; the file is removed."""
    try:
        source = open_xec(path)
        source.numbers()
        batch = source.read(0, source.num_events)
    except DataError:
        return None
    finally:
        path.unlink()
    assert len(batch.index) == source.num_events
    return batch


def damaged(file: Path, damage: Callable[[bytes], bytes]) -> XecBatch | None:
    path = file.with_name("damaged.root")
    path.write_bytes(damage(file.read_bytes()))
    return outcome(path)


def assert_sound(batch: XecBatch) -> None:
    """What a network relies on, whatever stands in the file."""
    assert batch.photons.shape == batch.time.shape == (len(batch.index), 4760)
    assert batch.photons.isfinite().all()
    assert batch.time.isfinite().all()
    assert (batch.photons[~batch.valid] == 0).all()
    assert (batch.time[~batch.time_valid] == 0).all()
    assert not (batch.time_valid & ~batch.valid).any()
    assert (batch.photons[batch.time_valid] >= 100).all()
    for name in ("energy", "position", "direction", "start", "first_time"):
        known = getattr(batch, name)
        assert known.isfinite().all() or known.isnan().all()


def test_an_undamaged_file_is_read(file: Path) -> None:
    batch = damaged(file, lambda content: content)
    assert len(batch.index) == NUM_EVENTS
    assert_sound(batch)


@FUZZ
@given(share=st.floats(0, 0.999))
def test_truncated(file: Path, share: float) -> None:
    batch = damaged(file, lambda content: content[: int(share * len(content))])
    assert batch is None


@FUZZ
@given(share=st.floats(0, 0.999), value=st.binary(min_size=1, max_size=9))
def test_overwritten(file: Path, share: float, value: bytes) -> None:
    def overwrite(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + value + content[place + len(value) :]

    damaged(file, overwrite)


@FUZZ
@given(share=st.floats(0, 0.03), value=st.binary(min_size=1, max_size=4))
def test_overwritten_at_the_start(file: Path, share: float, value: bytes) -> None:
    def overwrite(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + value + content[place + len(value) :]

    damaged(file, overwrite)


@FUZZ
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(file: Path, content: bytes) -> None:
    assert damaged(file, lambda _: content) is None
    assert damaged(file, lambda whole: whole[:100] + content) is None


TYPES = (np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_)
SHAPES = ((), (1,), (2,), (3,), (4760,), (2, 2), (4761,))


@FUZZ
@given(
    name=st.sampled_from((*BRANCHES, *TRUTH)),
    dtype=st.sampled_from(TYPES),
    shape=st.sampled_from(SHAPES),
)
def test_a_branch_of_another_type_or_shape(
    file: Path, columns: dict[str, np.ndarray], name: str, dtype: Any, shape: tuple[int, ...]
) -> None:
    values = np.arange(NUM_EVENTS * int(np.prod(shape))).reshape(NUM_EVENTS, *shape)
    path = file.with_name("changed.root")
    write_tree(path, [columns | {name: (values % 100).astype(dtype)}])
    batch = outcome(path)
    if batch is not None:
        assert_sound(batch)


@FUZZ
@given(missing=st.sets(st.sampled_from((*BRANCHES, *TRUTH)), min_size=1))
def test_missing_branches(file: Path, columns: dict[str, np.ndarray], missing: set[str]) -> None:
    path = file.with_name("fewer.root")
    kept = {name: values for name, values in columns.items() if name not in missing}
    write_tree(path, [kept or {"other": columns["run"]}])
    batch = outcome(path)
    assert (batch is not None) == (missing == set(TRUTH))
    if batch is not None:
        assert_sound(batch)


STRANGE = st.one_of(
    st.floats(width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e10, 9e9, -9e9, 3e38, -1e-30, 0.0]),
)


@FUZZ
@given(name=st.sampled_from(("npho", "relative_time", *TRUTH)), place=st.integers(0), value=STRANGE)
def test_strange_numbers(
    file: Path, columns: dict[str, np.ndarray], name: str, place: int, value: float
) -> None:
    changed = columns[name].copy()
    with np.errstate(over="ignore"):
        changed.reshape(-1)[place % changed.size] = value
    path = file.with_name("strange.root")
    write_tree(path, [columns | {name: changed}])
    batch = outcome(path)
    if batch is not None:
        assert_sound(batch)
    else:
        assert name in TRUTH


@FUZZ
@given(run=st.integers(-(2**31), 2**31 - 1), event=st.integers(-(2**31), 2**31 - 1))
def test_any_numbers_of_run_and_event(
    file: Path, columns: dict[str, np.ndarray], run: int, event: int
) -> None:
    path = file.with_name("numbers.root")
    numbers = {"run": np.full(2, run, np.int32), "event": np.full(2, event, np.int32)}
    write_tree(path, [columns | numbers])
    batch = outcome(path)
    assert batch.run.tolist() == [run] * 2
    assert batch.event.tolist() == [event] * 2


def test_a_file_of_another_kind_of_tree_is_refused(file: Path) -> None:
    path = file.with_name("lists.root")
    with uproot.recreate(path) as other:
        other.mktree("tree", {"npho": "var * float32", "run": "int32"})
        other["tree"].extend({"npho": [[1.0], [2.0, 3.0]], "run": np.arange(2, dtype=np.int32)})
    assert outcome(path) is None


def test_every_field_has_its_type(file: Path) -> None:
    batch = open_xec(file).read(0, NUM_EVENTS)
    floats = {"photons", "time", "energy", "position", "direction", "start", "weight"}
    for name, field in batch._asdict().items():
        expected = (
            torch.float32
            if name in floats
            else torch.float64
            if name == "first_time"
            else torch.bool
            if "valid" in name
            else torch.int64
        )
        assert field.dtype == expected, name
