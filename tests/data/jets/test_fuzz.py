"""Damaged files of jets give jets or a DataError, never anything else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.jets.make_jets import (
    draw_jets,
    write_flat,
    write_jetnet,
    write_lists,
    write_npz,
    write_root,
    write_table,
)
from hepattn.data import DataError
from hepattn.data.jets import JetInput, JetTable, open_jets
from hepattn.nn.normalise import Feature

FEATURES = JetInput([Feature("part_pt_log"), Feature("part_dphi")])
NAMES = ["jets.root", "lists.parquet", "flat.parquet", "top.h5", "jetnet.h5", "qg.npz"]
FUZZ = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file of each layout."""
    place = tmp_path_factory.mktemp("fuzz")
    jets = draw_jets(4, longest=3)
    few = {name: jets[name] for name in jets if name not in ("part_d0val", "part_dzval")}
    write_root(place / "jets.root", few)
    write_lists(place / "lists.parquet", few)
    write_flat(place / "flat.parquet", jets)
    write_table(place / "top.h5", jets)
    write_jetnet(place / "jetnet.h5", num_jets=4)
    write_npz(place / "qg.npz", num_jets=4)
    return place


def outcome(path: Path, damage: Callable[[bytes], bytes]) -> JetTable | None:
    """The jets after damage, or None for a DataError."""
    damaged = path.with_name(f"damaged{path.suffix}")
    shutil.copy(path, damaged)
    damaged.write_bytes(damage(path.read_bytes()))
    try:
        source = open_jets(damaged)
        FEATURES.check(source)
        return source.read(0, source.num_jets)
    except DataError:
        return None
    finally:
        damaged.unlink()


def test_undamaged_files_are_read(folder: Path) -> None:
    for name in NAMES:
        assert outcome(folder / name, lambda content: content).num_jets == 4


@FUZZ
@given(name=st.sampled_from(NAMES), share=st.floats(0, 0.95))
def test_truncated(folder: Path, name: str, share: float) -> None:
    cut = outcome(folder / name, lambda content: content[: int(share * len(content))])
    assert cut is None or cut.num_jets


@FUZZ
@given(
    name=st.sampled_from(NAMES), share=st.floats(0, 0.999), value=st.binary(min_size=1, max_size=9)
)
def test_overwritten(folder: Path, name: str, share: float, value: bytes) -> None:
    def overwrite(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + value + content[place + len(value) :]

    outcome(folder / name, overwrite)


@FUZZ
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=200))
def test_arbitrary_bytes(folder: Path, name: str, content: bytes) -> None:
    assert outcome(folder / name, lambda _: content) is None
