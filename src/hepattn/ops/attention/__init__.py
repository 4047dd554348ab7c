"""One attention contract, several exact kernels and the choice between them.

`make_plan` applies a pattern to a batch once; `attention` then serves every layer.
"""

from hepattn.ops.attention.backend import BackendName, abilities_table
from hepattn.ops.attention.dispatch import attention, attention_weights
from hepattn.ops.attention.layout import register_places
from hepattn.ops.attention.packed import make_packed_plan
from hepattn.ops.attention.padded import make_plan
from hepattn.ops.attention.pattern import Full, Pattern, Registers, Window
from hepattn.ops.attention.plan import Plan

__all__ = [
    "BackendName",
    "Full",
    "Pattern",
    "Plan",
    "Registers",
    "Window",
    "abilities_table",
    "attention",
    "attention_weights",
    "make_packed_plan",
    "make_plan",
    "register_places",
]
