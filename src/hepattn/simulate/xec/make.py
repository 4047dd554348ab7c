"""Simulated events, one by one, as columns of the experiment's trees."""

# N events, S sensors

import numpy as np
from numpy.typing import NDArray

from hepattn.physics.xec import vector_to_angles
from hepattn.simulate.xec.channels import Channels, make_channels
from hepattn.simulate.xec.config import XecConfig
from hepattn.simulate.xec.light import SPEED_OF_LIGHT, propagate
from hepattn.simulate.xec.shower import make_deposits, make_photon

Event = dict[str, NDArray | float | int]
Array = NDArray[np.float32]

INVALID = np.float32(1e10)
"""What stands where a channel has no number of photons or no time."""
MIN_PHOTOELECTRONS = 50
"""A channel has more if the earliest time is taken from it."""
STREAM = 0
"""Keeps the random numbers of events apart from those of runs."""


def make_events(config: XecConfig, num: int, first: int = 0) -> dict[str, NDArray]:
    """Make events as columns.

    Args:
        config: What to simulate.
        num: How many events, at least one.
        first: Number of the first; an event depends on its number, not on the others.

    Returns:
        The branches of the file by name (N, ...), as ``simulate_xec`` writes them.
    """
    events = [make_event(config, number) for number in range(first, first + num)]
    return {name: np.stack([np.asarray(event[name]) for event in events]) for name in events[0]}


def make_event(config: XecConfig, number: int) -> Event:
    """Make an event.

    Args:
        config: What to simulate.
        number: Number of the event.

    Returns:
        Photons and times of the channels (S,), and the truth; the units are those of the files.
    """
    rng = np.random.default_rng([config.seed, STREAM, number])
    run = number // config.run_size
    channels = make_channels(config, run)
    photon = make_photon(config, rng)
    light = propagate(make_deposits(photon, config, rng), config)
    offset = rng.uniform(-config.max_time_offset, config.max_time_offset)

    npe = rng.poisson(light.photons * channels.pde).astype(np.float32)  # (S,)
    npho = np.where(channels.dead, INVALID, npe / channels.pde * channels.scale)
    flight = np.linalg.norm(photon.xyz - photon.vertex) / SPEED_OF_LIGHT
    spread = np.hypot(config.time_noise, config.time_spread / np.sqrt(np.maximum(npe, 1)))
    time = light.delay + spread * rng.standard_normal(len(npe), np.float32)  # from the interaction
    has_time = ~channels.dead & (npe > 0) & (npho >= config.time_threshold)
    earliest = _earliest(time, npho, has_time, channels)
    theta, phi = vector_to_angles(photon.direction)
    return {
        "npho": npho.astype(np.float32),
        "relative_time": np.where(has_time, 1e-9 * (time - earliest), INVALID).astype(np.float32),
        "time_min_used": 1e-9 * (offset + flight + earliest),
        "ch_npho_max": np.int32(np.where(channels.dead, -1, npho).argmax()),
        "energyTruth": np.float32(photon.energy),
        "timeTruth": offset,
        "uvwTruth": photon.uvw.astype(np.float32),
        "xyzTruth": photon.xyz.astype(np.float32),
        "xyzVTX": photon.vertex.astype(np.float32),
        "emiAng": np.rad2deg([theta, phi]).astype(np.float32),
        "emiVec": photon.direction.astype(np.float32),
        "run": np.int32(run),
        "event": np.int32(number),
    }


def _earliest(time: Array, npho: Array, has_time: NDArray[np.bool_], channels: Channels) -> float:
    """Earliest time of the bright channels, of the brightest if none is bright enough."""
    bright = has_time & (npho * channels.pde > MIN_PHOTOELECTRONS)
    if bright.any():
        return float(time[bright].min())
    return float(time[np.where(has_time, npho, -1).argmax()])
