"""Damaged files give the same event or a DataError, never anything else."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.make_trackml import make_events, make_zip, rows_of
from data.test_reader import same
from hepattn.data import DataError
from hepattn.data.trackml import (
    FEATURE_NAMES,
    Event,
    ParticleSelection,
    hit_features,
    make_targets,
    open_events,
    prepare,
)
from hepattn.nn.normalise import Feature

TABLES = ["event000000001-hits", "event000000001-truth", "event000000001-particles"]
TABLES += ["event000000001-cells", "detectors"]
FEATURES = [Feature(name, missing=0.0) for name in FEATURE_NAMES]
FUZZ = settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small event; each example undoes its damage."""
    folder = tmp_path_factory.mktemp("fuzz")
    return make_events(folder / "raw", numbers=[1], num_particles=4, num_noise=3)


def read(path: Path) -> Event:
    """Read an event and use it as training does."""
    event = open_events(path).read(0)
    hit_features(event, FEATURES)
    if event.has_truth:
        make_targets(event, ParticleSelection())
    return event


def outcome(path: Path, damaged: Path, damage: Callable[[bytes], bytes]) -> Event | None:
    """The event after damage to one file, or None for a DataError."""
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(damage(content))
        return read(path)
    except DataError:
        return None
    finally:
        damaged.write_bytes(content)


@FUZZ
@given(table=st.sampled_from(TABLES), share=st.floats(0, 0.999))
def test_truncated_gzip(small: Path, table: str, share: float) -> None:
    path = small / f"{table}.csv.gz"
    assert outcome(small, path, lambda content: content[: int(share * len(content))]) is None


@FUZZ
@given(table=st.sampled_from(TABLES), share=st.floats(0, 0.999), value=st.integers(1, 255))
def test_flipped_bits_in_gzip(small: Path, table: str, share: float, value: int) -> None:
    def flip(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([content[place] ^ value]) + content[place + 1 :]

    event = outcome(small, small / f"{table}.csv.gz", flip)
    assert event is None or same(event, read(small))  # the gzip header may hold anything


@FUZZ
@given(table=st.sampled_from(TABLES), share=st.floats(0, 0.999))
def test_truncated_text(small: Path, table: str, share: float) -> None:
    def cut(content: bytes) -> bytes:
        text = gzip.decompress(content)
        return gzip.compress(text[: int(share * len(text))])

    event = outcome(small, small / f"{table}.csv.gz", cut)
    # Cut at the end of a line, a table of cells, modules or particles is only shorter.
    assert event is None or table.endswith(("cells", "detectors", "particles"))


@FUZZ
@given(table=st.sampled_from(TABLES), column=st.integers(0, 30))
def test_removed_columns(small: Path, table: str, column: int) -> None:
    def remove(content: bytes) -> bytes:
        rows = [line.split(",") for line in gzip.decompress(content).decode().splitlines()]
        for row in rows:
            del row[column % len(row)]
        return gzip.compress("".join(",".join(row) + "\n" for row in rows).encode())

    event = outcome(small, small / f"{table}.csv.gz", remove)
    assert event is None or same(event, read(small))


GARBAGE = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "nan", "inf", "-1", "0", "1e400", "9" * 19, "9" * 18, '"', "1,2", "\n"]),
    st.integers(-(2**63), 2**63).map(str),
    st.floats().map(str),
)


@FUZZ
@given(table=st.sampled_from(TABLES), line=st.integers(0), column=st.integers(0), text=GARBAGE)
def test_garbage_in_a_cell(small: Path, table: str, line: int, column: int, text: str) -> None:
    def spoil(content: bytes) -> bytes:
        rows = [row.split(",") for row in gzip.decompress(content).decode().split("\n")]
        row = rows[line % len(rows)]
        row[column % len(row)] = text
        return gzip.compress("\n".join(map(",".join, rows)).encode(errors="surrogatepass"))

    path = small / f"{table}.csv.gz"
    event = outcome(small, path, spoil)  # a number may stand for another one
    assert event is None or event.num_hits == len(rows_of(small / f"{TABLES[0]}.csv.gz"))


@FUZZ
@given(table=st.sampled_from(TABLES), content=st.binary(max_size=200))
def test_arbitrary_bytes(small: Path, table: str, content: bytes) -> None:
    assert outcome(small, small / f"{table}.csv.gz", lambda _: content) is None
    assert outcome(small, small / f"{table}.csv.gz", lambda _: gzip.compress(content)) is None


@FUZZ
@given(share=st.floats(0, 0.999), value=st.integers(0, 255))
def test_damaged_zip(small: Path, share: float, value: int) -> None:
    archive = small.parent / "events.zip"
    if not archive.exists():
        make_zip(small, archive)

    def flip(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([content[place] ^ value]) + content[place + 1 :]

    assert outcome(archive, archive, lambda content: content[: int(share * len(content))]) is None
    outcome(archive, archive, flip)


@FUZZ
@given(
    name=st.sampled_from(["event000000001-hits.parquet", "event000000001-particles.parquet"]),
    share=st.floats(0, 0.999),
)
def test_truncated_store(small: Path, name: str, share: float) -> None:
    store = small.parent / "store"
    if not store.exists():
        prepare(small, store, progress=False)
    cut = outcome(store, store / name, lambda content: content[: int(share * len(content))])
    assert cut is None


@FUZZ
@given(share=st.floats(0, 0.999), value=st.integers(0, 255))
def test_damaged_contents_of_a_store(small: Path, share: float, value: int) -> None:
    store = small.parent / "store"
    if not store.exists():
        prepare(small, store, progress=False)

    def spoil(content: bytes) -> bytes:
        place = int(share * len(content))
        return content[:place] + bytes([value]) + content[place + 1 :]

    event = outcome(store, store / "store.json", spoil)
    assert event is None or same(event, read(store))


def test_a_zip_of_an_unknown_version_is_a_data_error(small: Path, tmp_path: Path) -> None:
    archive = make_zip(small, tmp_path / "events.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 84  # version needed to extract
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"zip file version 8\.4"):
        open_events(archive)
