"""Small events by hand in the TrackML file format: straight tracks through a toy barrel."""

import csv
import gzip
import math
import random
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Row = dict[str, float]
Tables = dict[str, list[Row]]

LAYERS = [(8, 2, 32.0), (8, 4, 72.0), (8, 6, 116.0), (8, 8, 172.0), (13, 2, 260.0), (13, 4, 360.0)]
NUM_SECTORS = 16
FIRST_PARTICLE = 4_503_668_346_847_233  # odd and above 2^52: float64 has no room to spare


def detectors() -> list[Row]:
    """Sixteen flat modules around each layer; u is azimuthal, v along z, w radial."""
    rows = []
    for volume, layer, radius in LAYERS:
        for sector in range(NUM_SECTORS):
            phi = 2 * math.pi * (sector + 0.5) / NUM_SECTORS
            cos, sin = math.cos(phi), math.sin(phi)
            rotation = {"xu": -sin, "xv": 0, "xw": cos, "yu": cos, "yv": 0, "yw": sin}
            rotation |= {"zu": 0, "zv": 1, "zw": 0}
            row: Row = {"volume_id": volume, "layer_id": layer, "module_id": sector + 1}
            row |= {"cx": radius * cos, "cy": radius * sin, "cz": 0}
            row |= {f"rot_{axes}": value for axes, value in rotation.items()}
            row |= {"module_t": 0.15, "module_minhu": 8.4, "module_maxhu": 8.4, "module_hv": 36}
            row |= {"pitch_u": 0.05, "pitch_v": 0.05625 if volume == 8 else 1.2}
            rows.append(row)
    return rows


def event(number: int, num_particles: int = 60, num_noise: int = 40) -> Tables:
    """The tables of one event, in shuffled order."""
    rng = random.Random(number)
    tables: Tables = {"hits": [], "cells": [], "particles": [], "truth": []}
    hit_id = 0

    def add(layer: tuple[int, int, float], phi: float, z: float, particle: Row | None) -> None:
        nonlocal hit_id
        hit_id += rng.randint(1, 9)  # ids have gaps
        volume, layer_id, radius = layer
        sector = int((phi % (2 * math.pi)) / (2 * math.pi) * NUM_SECTORS)
        x, y = radius * math.cos(phi), radius * math.sin(phi)
        place: Row = {"hit_id": hit_id, "x": x, "y": y, "z": z}
        tables["hits"].append(
            place | {"volume_id": volume, "layer_id": layer_id, "module_id": sector + 1}
        )
        momentum = (
            (1e5, -1e5, 3e4) if particle is None else [particle[k] for k in ("px", "py", "pz")]
        )
        truth: Row = {"hit_id": hit_id, "particle_id": particle["particle_id"] if particle else 0}
        truth |= dict(zip(("tx", "ty", "tz"), (x, y, z), strict=True))
        truth |= dict(zip(("tpx", "tpy", "tpz"), momentum, strict=True))
        tables["truth"].append(truth | {"weight": rng.random() * 1e-3})
        for _ in range(rng.randint(0, 5) if rng.random() < 0.2 else rng.randint(1, 5)):
            cell: Row = {"hit_id": hit_id, "ch0": rng.randint(300, 303)}
            cell |= {"ch1": rng.randint(600, 602), "value": round(rng.uniform(0.05, 0.6), 5)}
            tables["cells"].append(cell)

    for index in range(num_particles):
        pt, phi = rng.uniform(0.3, 3), rng.uniform(-math.pi, math.pi)
        slope, vz = rng.uniform(-3, 3), rng.gauss(0, 55)
        particle: Row = {"particle_id": FIRST_PARTICLE + 2 * index, "particle_type": 211}
        particle |= {"vx": 0.01, "vy": -0.01, "vz": vz}
        particle |= {"px": pt * math.cos(phi), "py": pt * math.sin(phi), "pz": pt * slope}
        crossed = LAYERS[: rng.choice([0, 2, 4, 6, 6])]
        particle |= {"q": rng.choice([-1, 1]), "nhits": len(crossed)}
        tables["particles"].append(particle)
        for layer in crossed:
            add(layer, phi, vz + slope * layer[2], particle)
    for _ in range(num_noise):
        add(rng.choice(LAYERS), rng.uniform(-math.pi, math.pi), rng.uniform(-500, 500), None)
    for rows in tables.values():
        rng.shuffle(rows)
    return tables


def csv_text(rows: Iterable[Row]) -> str:
    """Rows as CSV."""
    rows = list(rows)
    lines = [",".join(rows[0])] + [
        ",".join(str(v) if isinstance(v, int) else f"{v:.9g}" for v in row.values()) for row in rows
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a CSV file, compressed if its name says so."""
    write_text(path, csv_text(rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file, compressed if its name says so."""
    content = text.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def make_events(
    folder: Path, numbers: Iterable[int] = (1000, 1001), suffix: str = ".csv.gz", **options: int
) -> Path:
    """Write whole events with the table of modules."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for table, rows in event(number, **options).items():
            write(folder / f"event{number:09d}-{table}{suffix}", rows)
    write(folder / f"detectors{suffix}", detectors())
    return folder


def make_zip(folder: Path, archive: Path, inside: str = "") -> Path:
    """Put a folder's files into a zip."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.iterdir(), reverse=True):
            file.writestr(zipfile.ZipInfo(inside + path.name), path.read_bytes())  # no time stamp
    return archive


def rows_of(path: Path) -> list[Mapping[str, str]]:
    """The rows of a CSV file as text, by the standard library."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return list(csv.DictReader(text.splitlines()))
