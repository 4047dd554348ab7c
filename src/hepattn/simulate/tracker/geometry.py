"""The detector: its modules and the surfaces that carry them, generated from the layout.

Modules are numbered row by row in a barrel and ring by ring on a disc. Lengths are in mm.
"""

# M modules, S barrel layers, D discs, G rings of a disc

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hepattn.simulate.tracker.layout import BARRELS, DISCS, Barrel, Discs, Ring, Sensor
from hepattn.simulate.tracker.modules import Modules

Array = NDArray[np.floating]
Index = NDArray[np.integer]
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class BarrelLayers:
    """The barrel layers as surfaces that a track crosses, one entry each (S,).

    Attributes:
        radius: Nominal radius in mm.
        half_length: Largest |z| in mm.
        first_module: Index of the layer's first module in ``Modules``.
        num_phi: Modules around the circumference.
        num_z: Modules along z.
        spacing: Their distance along z in mm.
        half_u: Half-width of a module in mm.
        half_v: Half-length of a module in mm.
    """

    radius: Array
    half_length: Array
    first_module: Index
    num_phi: Index
    num_z: Index
    spacing: Array
    half_u: Array
    half_v: Array


@dataclass(frozen=True)
class DiscLayers:
    """The discs as surfaces that a track crosses; absent rings have no modules.

    Attributes:
        z: Nominal position in mm (D,).
        inner: Inner radius in mm (D,).
        outer: Outer radius in mm (D,).
        first_module: Index of the ring's first module in ``Modules`` (D, G).
        num_phi: Modules of the ring, 0 where absent (D, G).
        radius: Radius of the module centres in mm (D, G).
        half_u: Largest half-width in mm (D, G).
        half_v: Half-length in mm (D, G).
    """

    z: Array
    inner: Array
    outer: Array
    first_module: Index
    num_phi: Index
    radius: Array
    half_u: Array
    half_v: Array


@dataclass(frozen=True)
class Geometry:
    """The detector.

    Attributes:
        modules: All modules.
        barrels: The barrel layers.
        discs: The discs.
    """

    modules: Modules
    barrels: BarrelLayers
    discs: DiscLayers


def _axes(u: Array, v: Array, w: Array) -> Array:
    return np.stack(np.broadcast_arrays(u, v, w), axis=-1)  # (M, 3, 3), axes in columns


def _row(sensor: Sensor, half_u: tuple[float, float], centre: Array, rotation: Array) -> Columns:
    num = len(centre)
    return {
        "centre": centre,
        "rotation": rotation,
        "half_u": np.tile(half_u, (num, 1)),
        "half_v": np.full(num, sensor.half_v),
        "half_thickness": np.full(num, sensor.half_thickness),
        "depth": np.full(num, sensor.depth),
        "pitch": np.tile(sensor.pitch, (num, 1)),
        "digital": np.full(num, sensor.digital),
    }


def _circle(num: int) -> Array:
    return -np.pi + (np.arange(num) + 0.5) * 2 * np.pi / num


def _barrel_layer(barrel: Barrel, radius: float, num_phi: int) -> Columns:
    row = np.repeat(np.arange(barrel.num_z), num_phi)
    phi = np.tile(_circle(num_phi), barrel.num_z)
    z = (row - 0.5 * (barrel.num_z - 1)) * barrel.spacing
    r = radius + np.where(row % 2, -barrel.stagger, barrel.stagger)
    centre = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=-1)
    normal, zero = phi + barrel.tilt, np.zeros_like(phi)
    rotation = _axes(
        np.stack([-np.sin(normal), np.cos(normal), zero], axis=-1),
        np.array([0.0, 0.0, 1.0]),
        np.stack([np.cos(normal), np.sin(normal), zero], axis=-1),
    )
    return _row(barrel.sensor, (barrel.half_u, barrel.half_u), centre, rotation)


def _disc_ring(discs: Discs, ring: Ring, z: float) -> Columns:
    phi = _circle(ring.num_phi)
    side = np.sign(z)
    offset = np.resize(ring.offsets, ring.num_phi)
    x, y = np.cos(phi), np.sin(phi)
    centre = np.stack([ring.radius * x, ring.radius * y, z + side * offset], axis=-1)
    zero = np.zeros_like(phi)
    rotation = _axes(
        np.stack([side * y, -side * x, zero], axis=-1),
        np.stack([x, y, zero], axis=-1),
        np.array([0.0, 0.0, side]),
    )
    return _row(discs.sensor, ring.half_u, centre, rotation)


def _layers() -> list[tuple[int, int, Columns]]:
    """Build the modules of every layer: volume id, layer id and the columns of its modules."""
    layers = []
    for barrel in BARRELS:
        for i, (radius, num_phi) in enumerate(barrel.layers):
            layers.append((barrel.volume, 2 * (i + 1), _barrel_layer(barrel, radius, num_phi)))
    for discs in DISCS:
        for volume, side in zip(discs.volumes, (-1, 1), strict=True):
            for i, z in enumerate(sorted(side * d for d in discs.distances)):
                rings = [_disc_ring(discs, ring, z) for ring in discs.rings]
                columns = {k: np.concatenate([r[k] for r in rings]) for k in rings[0]}
                layers.append((volume, 2 * (i + 1), columns))
    return sorted(layers, key=lambda layer: layer[:2])


@cache
def geometry() -> Geometry:
    """Build the detector, once.

    Returns:
        Its modules, ordered by volume, layer and module id, and its surfaces.
    """
    layers = _layers()
    sizes = [len(columns["centre"]) for *_, columns in layers]
    modules = Modules(
        volume=np.repeat([volume for volume, *_ in layers], sizes),
        layer=np.repeat([layer for _, layer, _ in layers], sizes),
        module=np.concatenate([np.arange(1, size + 1) for size in sizes]),
        **{k: np.concatenate([columns[k] for *_, columns in layers]) for k in layers[0][2]},
    )
    first = {layer[:2]: start for layer, start in zip(layers, np.cumsum([0, *sizes]), strict=False)}
    return Geometry(modules, _barrel_surfaces(first), _disc_surfaces(first))


def _barrel_surfaces(first: dict[tuple[int, int], int]) -> BarrelLayers:
    rows = [
        (
            radius,
            0.5 * (barrel.num_z - 1) * barrel.spacing + barrel.sensor.half_v,
            first[barrel.volume, 2 * (i + 1)],
            num_phi,
            barrel.num_z,
            barrel.spacing,
            barrel.half_u,
            barrel.sensor.half_v,
        )
        for barrel in BARRELS
        for i, (radius, num_phi) in enumerate(barrel.layers)
    ]
    return BarrelLayers(*(np.array(column) for column in zip(*rows, strict=True)))


def _disc_surfaces(first: dict[tuple[int, int], int]) -> DiscLayers:
    num_rings = max(len(discs.rings) for discs in DISCS)
    surfaces, rings = [], []
    for discs in DISCS:
        inner = discs.rings[0].radius - discs.sensor.half_v
        outer = discs.rings[-1].radius + discs.sensor.half_v
        for volume, side in zip(discs.volumes, (-1, 1), strict=True):
            for i, z in enumerate(sorted(side * d for d in discs.distances)):
                surfaces.append((z, inner, outer))
                table = np.zeros((num_rings, 5))
                start = first[volume, 2 * (i + 1)]
                for g, ring in enumerate(discs.rings):
                    half_u, half_v = max(ring.half_u), discs.sensor.half_v
                    table[g] = start, ring.num_phi, ring.radius, half_u, half_v
                    start += ring.num_phi
                rings.append(table)
    z, inner, outer = np.array(surfaces).T
    first_module, num_phi, radius, half_u, half_v = np.stack(rings).transpose(2, 0, 1)
    whole = first_module.astype(np.int64), num_phi.astype(np.int64)
    return DiscLayers(z, inner, outer, *whole, radius, half_u, half_v)


def detector_table() -> Columns:
    """Describe the modules in the columns of TrackML's ``detectors.csv``.

    Returns:
        One entry a module; lengths in mm. All calls share the arrays: copy before changing them.
    """
    return dict(_detector_table())


@cache
def _detector_table() -> Columns:
    m = geometry().modules
    table = {"volume_id": m.volume, "layer_id": m.layer, "module_id": m.module}
    table |= {f"c{axis}": m.centre[:, i] for i, axis in enumerate("xyz")}
    for i, axis in enumerate("xyz"):
        table |= {f"rot_{axis}{local}": m.rotation[:, i, j] for j, local in enumerate("uvw")}
    table |= {
        "module_t": m.half_thickness,
        "module_minhu": m.half_u[:, 0],
        "module_maxhu": m.half_u[:, 1],
        "module_hv": m.half_v,
        "pitch_u": m.pitch[:, 0],
        "pitch_v": m.pitch[:, 1],
    }
    return {k: v.astype(np.float32 if v.dtype.kind == "f" else np.int64) for k, v in table.items()}
