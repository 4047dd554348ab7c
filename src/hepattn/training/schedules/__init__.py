"""Learning rate schedules that step with the optimiser and know its number of steps.

The rate of the n-th optimiser step, n = 1, 2, ..., is a closed formula of n and of the total N, so
that it survives a resume and can be drawn beforehand. Every group of parameters keeps its ratio to
the optimiser's own rate. In a config::

    schedule:
      class_path: hepattn.training.schedules.OneCycle
      init_args: {max_lr: 1.0e-4}

Optimiser and number of steps come from the module. `Other` takes schedules of torch and of
packages.
"""

from hepattn.training.schedules.base import Schedule
from hepattn.training.schedules.formulas import Attention, FlatThenDecay, SqrtExp
from hepattn.training.schedules.one_cycle import OneCycle
from hepattn.training.schedules.other import Other
from hepattn.training.schedules.plateau import Plateau
from hepattn.training.schedules.warmup import Constant, Cosine, Linear

__all__ = [
    "Attention",
    "Constant",
    "Cosine",
    "FlatThenDecay",
    "Linear",
    "OneCycle",
    "Other",
    "Plateau",
    "Schedule",
    "SqrtExp",
]
