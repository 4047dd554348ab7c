"""One attention contract, several exact kernels and the choice between them.

`make_plan` applies a pattern to a batch once; `attention` then serves every layer.
"""

from hepattn.ops.attention.backend import BackendName, abilities_table
from hepattn.ops.attention.dispatch import attention, attention_weights
from hepattn.ops.attention.pattern import Full, Pattern, Window
from hepattn.ops.attention.plan import Plan, make_plan

__all__ = [
    "BackendName",
    "Full",
    "Pattern",
    "Plan",
    "Window",
    "abilities_table",
    "attention",
    "attention_weights",
    "make_plan",
]
