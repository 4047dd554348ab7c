"""The sensors of the liquid-xenon calorimeter: positions, normals, symmetries, neighbours."""

# S sensors, E pairs of neighbours

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from hepattn.physics.xec.grids import grid
from hepattn.physics.xec.hexagons import hex_face, hex_places

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FACES = ("inner", "us", "ds", "outer", "top", "bottom")
NUM_SENSORS = 4760
NUM_SIPMS = 4092
"""The SiPMs come first; all others are PMTs."""

RADIUS_IN = 64.84
"""Inner radius of the xenon in cm."""
RADIUS_OUT = 106.27
"""Outer radius of the xenon in cm."""
HALF_Z_IN = 67.03 / 2
"""Half the length along z at the inner radius in cm."""
HALF_Z_OUT = 96.0 / 2
"""Half the length along z at the outer radius in cm."""
HALF_PHI = np.deg2rad(125.52) / 2
"""Half the opening angle in radians."""
SENSOR_RADIUS = 64.97
"""Radius of the inner sensors in cm, a SiPM's height above the inner wall."""

INNER_PITCH = (1.349682, 1.509777)
"""Distance of inner sensors: degrees in phi, cm in z."""
COARSE_PITCH = (5.23, 10.356)
"""The same of the outer face's regular sensors; the phi is also that of the US and DS faces."""
CENTRE_PITCH = (3.48665, 6.2)
"""The same of the outer face's dense centre."""
SIDE_RADIUS, SIDE_Z = 69.53, 35.1547
"""First row of the US and DS faces in cm."""
SIDE_PITCH = (6.684, 2.3369)
"""From row to row there: cm in r and cm in |z|."""
END_PHI = 117.24
"""Azimuth of the top face in degrees; the bottom face has the negative one."""
END_RADIUS = 68.27
"""First row of the top and bottom faces in cm."""
END_PITCH = (6.91, 6.12)
"""Distance of rows there, and of sensors in a row, in cm."""


class Sensors(NamedTuple):
    """All sensors, in the order of their numbers.

    Attributes:
        position: Middle of the sensitive area in cm (S, 3).
        normal: Unit vector into the xenon (S, 3).
        face: Which of ``FACES`` (S,).
        is_pmt: Whether a PMT, not a SiPM (S,).
    """

    position: Array
    normal: Array
    face: Index
    is_pmt: NDArray[np.bool_]


class Neighbours(NamedTuple):
    """Pairs of sensors of one face, in both directions.

    Attributes:
        source: One sensor (E,).
        target: The other one (E,), in rising order.
    """

    source: Index
    target: Index


@cache
def sensors() -> Sensors:
    """Give the sensors.

    Returns:
        Read-only arrays.
    """
    position, normal = np.empty((2, NUM_SENSORS, 3))
    face = np.full(NUM_SENSORS, FACES.index("outer"))

    # Azimuths are degrees from the -x axis, so that mirrored sensors are mirrored to the last bit.
    def place(ids: Index, r: object, phi: object, z: object, direction: tuple) -> None:
        phi = np.broadcast_to(np.deg2rad(phi), ids.shape)
        cos, sin = -np.cos(phi), -np.sin(phi)
        position[ids] = np.stack(np.broadcast_arrays(r * cos, r * sin, z), axis=-1)
        n_r, n_phi, n_z = direction
        parts = n_r * cos - n_phi * sin, n_r * sin + n_phi * cos, n_z
        normal[ids] = np.stack(np.broadcast_arrays(*parts), axis=-1)

    for name, r, (phi_pitch, z_pitch), inwards in (
        ("inner", SENSOR_RADIUS, INNER_PITCH, 1),
        ("coarse", RADIUS_OUT, COARSE_PITCH, -1),
        ("centre", RADIUS_OUT, CENTRE_PITCH, -1),  # after coarse: it re-places twelve of them
    ):
        ids = grid(name)
        rows, columns = (_centred(num) for num in ids.shape)
        place(ids, r, phi_pitch * rows[:, None], z_pitch * columns, (inwards, 0, 0))
    face[grid("inner")] = FACES.index("inner")

    tilt = np.array([SIDE_PITCH[1], -SIDE_PITCH[0]]) / np.hypot(*SIDE_PITCH)
    for name, side in (("us", -1), ("ds", 1)):
        ids = grid(name)
        phi, k = COARSE_PITCH[0] * _centred(ids.shape[0])[:, None], np.arange(ids.shape[1])
        z = side * (SIDE_Z + SIDE_PITCH[1] * k)
        place(ids, SIDE_RADIUS + SIDE_PITCH[0] * k, phi, z, (tilt[0], 0, side * tilt[1]))
        face[ids] = FACES.index(name)

    row, half_pitches = hex_places()
    for name, side in (("top", -1), ("bottom", 1)):
        ids = hex_face(name)
        r, z = END_RADIUS + END_PITCH[0] * row, END_PITCH[1] * half_pitches / 2
        place(ids, r, side * (180 - END_PHI), z, (0, -side, 0))
        face[ids] = FACES.index(name)

    found = Sensors(position, normal, face, np.arange(NUM_SENSORS) >= NUM_SIPMS)
    for array in found:
        array.flags.writeable = False
    return found


def _centred(num: int) -> Array:
    return np.arange(num) - (num - 1) / 2


def face_centroids() -> Array:
    """Give the mean position of the sensors of each face.

    Returns:
        In cm (6, 3), in the order of ``FACES``.
    """
    position, _, face, _ = sensors()
    return np.stack([position[face == number].mean(0) for number in range(len(FACES))])


@cache
def mirror_z() -> Index:
    """Give the reflection z -> -z of an event, an exact symmetry: US and DS trade places.

    Returns:
        A permutation (S,), read-only: the mirrored event is ``x[..., mirror_z()]``.
    """
    row, half_pitches = hex_places()
    within = np.lexsort((-half_pitches, row))
    swapped = {"us": "ds", "ds": "us"}
    return _permutation(
        [(grid(name), grid(swapped.get(name, name))) for name in ("us", "ds")]
        + [(grid(name), grid(name)[:, ::-1]) for name in ("inner", "coarse", "centre")]
        + [(hex_face(name), hex_face(name)[within]) for name in ("top", "bottom")]
    )


@cache
def mirror_y() -> Index:
    """Give the reflection y -> -y of an event, an exact symmetry: top and bottom trade places.

    Returns:
        A permutation (S,), read-only: the mirrored event is ``x[..., mirror_y()]``.
    """
    grids = ("inner", "us", "ds", "coarse", "centre")
    return _permutation(
        [(grid(name), grid(name)[::-1]) for name in grids]
        + [(hex_face("top"), hex_face("bottom")), (hex_face("bottom"), hex_face("top"))]
    )


def _permutation(pairs: list[tuple[Index, Index]]) -> Index:
    permutation = np.empty(NUM_SENSORS, np.int64)
    for to, come_from in pairs:
        permutation[to] = come_from
    permutation.flags.writeable = False
    return permutation


@cache
def neighbours_within(radius: float) -> Neighbours:
    """Find the sensors of the same face that are close to each other.

    Args:
        radius: Largest distance in cm, in a straight line.

    Returns:
        All pairs of two different sensors, each in both directions, read-only.
    """
    position, _, face, _ = sensors()
    pairs = []
    for number in range(len(FACES)):
        ids = np.flatnonzero(face == number)
        pairs.append(ids[KDTree(position[ids]).query_pairs(radius, output_type="ndarray")])
    one, other = np.concatenate(pairs).T
    source, target = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.lexsort((source, target))
    found = Neighbours(source[order], target[order])
    for array in found:
        array.flags.writeable = False
    return found
