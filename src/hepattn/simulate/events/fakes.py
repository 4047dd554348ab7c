"""Data and simulation with tight and loose leptons, of a known fake factor."""

# N events

import numpy as np
from scipy.special import expit

from hepattn.simulate.events.closed_form import draw_objects, finish
from hepattn.simulate.events.config import EventsConfig
from hepattn.simulate.events.table import Tables, event_table, mc_weights, take
from hepattn.simulate.jets.kinematics import Array

MC_SPREAD = (0.5, 1.5)
"""Range of the magnitudes of simulated weights, around 1."""


def make_fakes(name: str, num: int, config: EventsConfig, rng: np.random.Generator) -> Tables:
    """Try to make events with one lepton.

    All are drawn from one density. A known share of them, which depends on the event, has a fake
    lepton; simulation has prompt leptons only, with weights that make it agree with the prompt
    part of data. Fake and prompt leptons are tight with known probabilities, else loose.

    Args:
        name: Not used: the samples are drawn together.
        num: How many to try.
        config: Gives the size of the simulated samples.
        rng: Source of randomness.

    Returns:
        Events with the columns ``is_data``, ``is_tight`` and ``is_fake``; ``log_fake_factor``, the
        logarithm of the density of tight over loose fakes there; ``log_ratio``, the logarithm of
        data over simulation there, among tight events in a tight one and among loose in a loose
        one.
    """
    del name
    objects = draw_objects(num, rng, one_lepton=True)
    columns = finish(objects, rng)
    stored = {name: column.astype(np.float32).astype(float) for name, column in columns.items()}
    share, fake_tight = fake_share(stored), fake_efficiency(stored)
    prompt_tight = prompt_efficiency(stored)
    is_data = rng.random(num) < 1.0 / (1.0 + config.mc_per_data)
    is_fake = rng.random(num) < share
    is_tight = rng.random(num) < np.where(is_fake, fake_tight, prompt_tight)
    in_fakes = share * np.where(is_tight, fake_tight, 1.0 - fake_tight)
    in_prompt = (1.0 - share) * np.where(is_tight, prompt_tight, 1.0 - prompt_tight)
    mc = mc_weights(num, config.negative_share, rng) * rng.uniform(*MC_SPREAD, num)
    label = 2 * is_data + is_tight
    weight = np.where(is_data, 1.0, mc / config.mc_per_data)
    columns |= {
        "is_data": is_data,
        "is_tight": is_tight,
        "is_fake": is_fake,
        "log_fake_factor": np.log(fake_tight / (1.0 - fake_tight)),
        "log_ratio": np.log1p(in_fakes / in_prompt),
    }
    return take({"events": event_table(label, weight, columns), **objects}, is_data | ~is_fake)


def fake_share(columns: dict[str, Array]) -> Array:
    """Give the probability that a lepton is fake, before it is tight or loose.

    Args:
        columns: Columns of the events (N,).

    Returns:
        (N,).
    """
    soft = np.tanh((columns["lepton_pt"] - 40.0) / 25.0)
    return expit(0.6 - 1.0 * soft + 0.2 * (columns["num_jets"] - 4.0))


def fake_efficiency(columns: dict[str, Array]) -> Array:
    """Give the probability that a fake lepton is tight.

    Args:
        columns: Columns of the events (N,).

    Returns:
        (N,).
    """
    hard = np.tanh((columns["lepton_pt"] - 45.0) / 25.0)
    forward = columns["lepton_eta"] ** 2 / (1.0 + columns["lepton_eta"] ** 2)
    muon = columns["lepton_flavour"] == 13
    jets = columns["num_jets"] - 4.0
    return expit(-1.3 + 0.7 * hard - 0.8 * forward + 0.5 * muon - 0.12 * jets)


def prompt_efficiency(columns: dict[str, Array]) -> Array:
    """Give the probability that a prompt lepton is tight.

    Args:
        columns: Columns of the events (N,).

    Returns:
        (N,).
    """
    return expit(1.6 + 0.5 * np.tanh((columns["lepton_pt"] - 40.0) / 25.0))
