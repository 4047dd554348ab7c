"""What is constant in a run: dead channels and the errors of the calibration."""

# S sensors

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.xec import NUM_SENSORS, sensors
from hepattn.simulate.xec.config import XecConfig

CLUSTER_RADIUS = {False: 3.2, True: 8.0}
"""Reach in cm of a dead cluster from its middle, on the inner face and on the others: about a dozen
SiPMs, or as many as seven PMTs."""
STREAM = 1
"""Keeps the random numbers of runs apart from those of events."""


class Channels(NamedTuple):
    """The channels in a run.

    Attributes:
        dead: Which give nothing (S,).
        scale: Photons that are reported for each photon (S,).
        pde: Probability to detect a photon (S,).
    """

    dead: NDArray[np.bool_]
    scale: NDArray[np.float32]
    pde: NDArray[np.float32]


@lru_cache(maxsize=8)
def make_channels(config: XecConfig, run: int) -> Channels:
    """Draw the state of the channels in a run.

    Args:
        config: What to simulate.
        run: Number of the run.

    Returns:
        The channels, read-only.
    """
    rng = np.random.default_rng([config.seed, STREAM, run])
    position, _, face, is_pmt = sensors()
    dead = rng.random(NUM_SENSORS) < config.dead_share
    for middle in rng.integers(NUM_SENSORS, size=config.num_dead_clusters):
        distance = np.linalg.norm(position - position[middle], axis=1)
        reach = CLUSTER_RADIUS[bool(is_pmt[middle])]
        dead |= (distance < reach) & (face == face[middle])
    scale = rng.normal(1.0, config.calibration_spread, NUM_SENSORS)
    pde = np.where(is_pmt, config.pmt_pde, config.sipm_pde)
    channels = Channels(dead, scale.clip(min=0.0).astype(np.float32), pde.astype(np.float32))
    for array in channels:
        array.flags.writeable = False
    return channels
