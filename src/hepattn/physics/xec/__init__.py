"""Geometry of the MEG II liquid-xenon calorimeter (XEC), from formulas (numpy).

4760 light sensors look into a C-shaped volume of liquid xenon around the z axis, on the side of
negative x: SiPMs on the inner face, photomultipliers (PMTs) on the five others. Lengths are in cm,
angles in radians.
"""

from hepattn.physics.xec.coordinates import (
    angles_to_vector,
    is_fiducial,
    is_in_xenon,
    uvw_to_xyz,
    vector_to_angles,
    xyz_to_uvw,
)
from hepattn.physics.xec.grids import FineGrid, fine_grid, grid
from hepattn.physics.xec.hexagons import HexEdges, hex_edges, hex_face
from hepattn.physics.xec.sensors import (
    FACES,
    HALF_PHI,
    HALF_Z_IN,
    HALF_Z_OUT,
    NUM_SENSORS,
    NUM_SIPMS,
    RADIUS_IN,
    RADIUS_OUT,
    SENSOR_RADIUS,
    Neighbours,
    Sensors,
    face_centroids,
    mirror_y,
    mirror_z,
    neighbours_within,
    sensors,
)
from hepattn.physics.xec.solid_angle import (
    active_areas,
    disc_solid_angle,
    rectangle_solid_angle,
    solid_angles,
)

__all__ = [
    "FACES",
    "HALF_PHI",
    "HALF_Z_IN",
    "HALF_Z_OUT",
    "NUM_SENSORS",
    "NUM_SIPMS",
    "RADIUS_IN",
    "RADIUS_OUT",
    "SENSOR_RADIUS",
    "FineGrid",
    "HexEdges",
    "Neighbours",
    "Sensors",
    "active_areas",
    "angles_to_vector",
    "disc_solid_angle",
    "face_centroids",
    "fine_grid",
    "grid",
    "hex_edges",
    "hex_face",
    "is_fiducial",
    "is_in_xenon",
    "mirror_y",
    "mirror_z",
    "neighbours_within",
    "rectangle_solid_angle",
    "sensors",
    "solid_angles",
    "uvw_to_xyz",
    "vector_to_angles",
    "xyz_to_uvw",
]
