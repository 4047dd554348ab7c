"""The layout of the detector in compact tables: barrels and discs of planar silicon modules.

Layer radii, disc positions, sensor sizes, pitches, tilts and staggers follow the public TrackML
detector. Lengths are in mm, angles in radians.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sensor:
    """A type of sensor.

    Args:
        half_thickness: Half the thickness of the silicon (``module_t``).
        depth: Depth over which charge is collected. The public events show paths of one
            half-thickness in barrels and of two on discs.
        half_v: Half the length along v.
        pitch: Cell size along u and v.
        digital: Whether a cell reports 1 rather than its charge.
    """

    half_thickness: float
    depth: float
    half_v: float
    pitch: tuple[float, float]
    digital: bool


@dataclass(frozen=True)
class Barrel:
    """Layers of tilted modules on cylinders.

    Args:
        volume: Volume id.
        layers: Radius and number of modules around the circumference, a layer each.
        num_z: Modules along z.
        spacing: Distance of modules along z.
        stagger: Radial offset, with alternating sign along z.
        tilt: Angle of the module's normal to the radius.
        half_u: Half the width of a module.
        sensor: The sensors.
    """

    volume: int
    layers: tuple[tuple[float, int], ...]
    num_z: int
    spacing: float
    stagger: float
    tilt: float
    half_u: float
    sensor: Sensor


@dataclass(frozen=True)
class Ring:
    """A ring of modules on a disc.

    Args:
        radius: Radius of the module centres.
        num_phi: Number of modules.
        offsets: Distances in |z| from the disc's nominal position, repeated around the ring.
        half_u: Half the module's width at its inner and at its outer edge.
    """

    radius: float
    num_phi: int
    offsets: tuple[float, ...]
    half_u: tuple[float, float]


@dataclass(frozen=True)
class Discs:
    """Discs on both sides of the barrel.

    Args:
        volumes: Volume ids of the negative and the positive side.
        distances: |z| of the discs.
        rings: The rings of each disc.
        sensor: The sensors.
    """

    volumes: tuple[int, int]
    distances: tuple[float, ...]
    rings: tuple[Ring, ...]
    sensor: Sensor


PIXEL, SHORT, LONG = (0.05, 0.05625), (0.08, 1.2), (0.12, 10.8)
STRIP_DISTANCES = (1220.0, 1500.0, 1800.0, 2150.0, 2550.0, 2950.0)

BARRELS = (
    Barrel(
        8,
        ((32, 16), (72, 32), (116, 52), (172, 78)),
        num_z=14,
        spacing=70,
        stagger=0.25,
        tilt=0.14,
        half_u=8.4,
        sensor=Sensor(0.15, 0.15, 36, PIXEL, digital=False),
    ),
    Barrel(
        13,
        ((260, 40), (360, 56), (500, 78), (660, 102)),
        num_z=21,
        spacing=103,
        stagger=1.5,
        tilt=-0.15,
        half_u=24,
        sensor=Sensor(0.25, 0.25, 54, SHORT, digital=True),
    ),
    Barrel(
        17,
        ((820, 120), (1020, 152)),
        num_z=21,
        spacing=103,
        stagger=1.5,
        tilt=-0.15,
        half_u=24,
        sensor=Sensor(0.35, 0.35, 54, LONG, digital=True),
    ),
)

DISCS = (
    Discs(
        (7, 9),
        (600, 700, 820, 960, 1100, 1300, 1500),
        rings=(
            Ring(66, 40, (2.5, -2.0, 2.0, -2.5), (8.4, 8.4)),
            Ring(140, 68, (2.0, -2.0), (8.4, 8.4)),
        ),
        sensor=Sensor(0.15, 0.3, 36, PIXEL, digital=False),
    ),
    Discs(
        (12, 14),
        STRIP_DISTANCES,
        rings=(
            Ring(318, 54, (-1.5, -4.5), (16.4, 24.2)),
            Ring(470, 56, (4.5, 1.5), (24.2, 32.2)),
            Ring(622, 60, (-1.5, -4.5), (32.2, 40.0)),
        ),
        sensor=Sensor(0.25, 0.5, 78, SHORT, digital=True),
    ),
    Discs(
        (16, 18),
        STRIP_DISTANCES,
        rings=(
            Ring(828, 48, (-2.5, -5.5), (54.0, 64.2)),
            Ring(942, 50, (5.5, 2.5), (66.0, 72.0)),
        ),
        sensor=Sensor(0.35, 0.7, 78, (0.12, 10.4), digital=True),
    ),
)
