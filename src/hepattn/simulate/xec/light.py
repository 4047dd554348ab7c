"""Scintillation light on its way from a shower to the sensors."""

# K deposits, S sensors

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.xec import NUM_SENSORS, active_areas, sensors, solid_angles
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.shower import Deposits

Array = NDArray[np.float32]

SPEED_OF_LIGHT = 29.9792458
"""In cm/ns."""
REFRACTIVE_INDEX = 1.61
"""Of liquid xenon at the wavelength of its light."""


class Light(NamedTuple):
    """What arrives at the sensors.

    Attributes:
        photons: Expected number (S,).
        delay: Mean time from the first interaction to their arrival in ns (S,).
    """

    photons: Array
    delay: Array


def propagate(deposits: Deposits, config: XecConfig) -> Light:
    """Follow the light of a shower to the sensors, all in single precision.

    Args:
        deposits: Where the energy is.
        config: What to simulate.

    Returns:
        Direct light, with absorption on its way, and a diffuse share that depends on the areas of
        the sensors alone. The delay is that of the direct light, in the mean over the deposits that
        a sensor sees; one that sees none takes the mean over all of them.
    """
    emitted = (deposits.energy * 1e3 * config.light_yield).astype(np.float32)  # (K,)
    position = deposits.position.astype(np.float32)
    direct = solid_angles(position)  # (K, S)
    distance = _distances(position)  # (K, S)
    direct *= emitted[:, None] / np.float32(4 * np.pi)
    direct *= np.exp(distance * np.float32(-1 / config.absorption_length))

    delay = distance  # (K, S), in place
    delay *= np.float32(REFRACTIVE_INDEX / SPEED_OF_LIGHT)
    delay += (deposits.path / SPEED_OF_LIGHT).astype(np.float32)[:, None]
    photons = direct.sum(0)  # (S,)
    weighted = np.einsum("ks,ks->s", direct, delay)
    shares = emitted / max(float(emitted.sum()), 1.0)
    delay = np.where(photons > 0, weighted / np.where(photons > 0, photons, 1), shares @ delay)
    return Light(photons + config.diffuse_share * photons.sum() * _area_shares(), delay)


def _distances(point: Array) -> Array:
    square = np.zeros((len(point), NUM_SENSORS), np.float32)
    for p, s in zip(point.T, _positions(), strict=True):
        square += (p[:, None] - s) ** 2
    return np.sqrt(square, out=square)


@cache
def _positions() -> Array:
    return np.ascontiguousarray(sensors().position.T, np.float32)


@cache
def _area_shares() -> Array:
    areas = active_areas()
    return (areas / areas.sum()).astype(np.float32)
