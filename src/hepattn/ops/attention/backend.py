"""Who can do what: the one place from which choice, refusals and the documented table come."""

from typing import Literal

import torch
from torch import Tensor

from hepattn.ops.attention.pattern import Full, Window
from hepattn.ops.attention.plan import Plan

BackendName = Literal["auto", "sdpa", "local"]

# What a call may ask for, and how the table words it.
REQUESTS = {
    "full": "full attention",
    "padding": "padded events",
    "cross": "cross-attention with query validity",
    "window": "window, open",
    "wrap": "window, wrapped at each event's own length",
    "registers": "leading registers",
    "gqa": "fewer key and value heads than query heads",
    "bias": "dense additive bias with gradients",
    "dropout": "attention dropout",
    "cpu": "CPU",
    "accelerator": "GPU and other accelerators",
    "float64": "float64",
    "float32": "float32",
    "half": "bfloat16 and float16",
}

# Every request a backend answers exactly, forward and backward.
ABILITIES: dict[str, frozenset[str]] = {
    "sdpa": frozenset(REQUESTS),
    "local": frozenset(REQUESTS) - {"cross", "bias", "dropout"},
}

# How time and memory grow with the tokens N of an event and the window w.
COSTS = {
    "sdpa": ("N²", "N² with a window, a bias or an unfused kernel, else N"),
    "local": ("N · w; N² without a window", "N"),
}

# From this many tokens beyond the window's size on, `local` beats a dense mask on the CPU.
CPU_TOKENS_BEYOND_WINDOW = 256
# A loop over events beats padding for full attention on the CPU from this padded length on.
CPU_TOKENS_FULL = 256
# On other devices a bound on the memory of the dense mask; no measurement of speed is behind it.
ACCELERATOR_TOKENS = 16384


# Label and value of each request, by its key in `REQUESTS`. They become words only in messages:
# to write a tensor's size down fixes it for a compiled graph.
Needs = dict[str, tuple[str, object]]


def describe(
    q: Tensor, k: Tensor, *, plan: Plan, bias: Tensor | None = None, dropout: float = 0.0
) -> Needs:
    """List what a call of `attention` needs of a backend."""
    pattern = plan.pattern
    needs: Needs = {}
    if isinstance(pattern, Full):
        needs["full"] = ("", pattern)
    if isinstance(pattern, Window):
        needs["wrap" if pattern.wrap else "window"] = ("", pattern)
        if pattern.num_registers:
            needs["registers"] = ("num_registers=", pattern.num_registers)
    if plan.is_padded:
        needs["padding"] = ("", "padded events")
    if plan.is_cross:
        needs["cross"] = ("", "query_valid")
    if q.shape[1] != k.shape[1]:
        needs["gqa"] = ("num_key_heads=", k.shape[1])
    if bias is not None:
        needs["bias"] = ("bias of shape ", tuple(bias.shape))
    if dropout > 0:
        needs["dropout"] = ("dropout=", dropout)
    needs[_device_class(q)] = ("device=", q.device)
    needs[_dtype_class(q.dtype)] = ("dtype=", q.dtype)
    return needs


def words(needs: Needs) -> str:
    """Write down the values that a call asks for."""
    return ", ".join(f"{label}{value}" for label, value in needs.values())


def choose(needs: Needs, *, plan: Plan, num_tokens: int) -> str:
    """Pick the fastest backend that can do everything a call asks for.

    `local` wins for windows in long events, and on the CPU for full attention over events of
    different lengths, since it spends no time on padding. Graphs that are exported use `sdpa`,
    which other runtimes can express.

    Args:
        needs: What the call asks for.
        plan: The batch's plan.
        num_tokens: Padded number of keys.
    """
    can = able(needs)
    if not can:
        raise ValueError(f"no backend can do all of: {words(needs)}")
    may_use_local = "local" in can and not torch.compiler.is_exporting()
    return "local" if may_use_local and _local_is_faster(needs, plan, num_tokens) else can[0]


def refuse(backend: str, needs: Needs) -> None:
    """Raise an error if a backend cannot do what a call asks for.

    Raises:
        ValueError: Naming the backend, the values that it cannot serve, what it lacks, and which
            backends can.
    """
    if backend not in ABILITIES:
        names = ", ".join(["auto", *ABILITIES])
        raise ValueError(f"backend={backend!r} must be one of: {names}")
    lacking = {need: value for need, value in needs.items() if need not in ABILITIES[backend]}
    if lacking:
        lacks = ", ".join(REQUESTS[need] for need in lacking)
        others = ", ".join(able(needs)) or "none"
        raise ValueError(
            f"backend={backend!r} cannot serve {words(lacking)}: it lacks {lacks}; "
            f"backends that can: {others}"
        )


def able(needs: Needs) -> list[str]:
    """Name the backends that can do all that is needed."""
    return [name for name, abilities in ABILITIES.items() if abilities.issuperset(needs)]


def abilities_table() -> str:
    """Write the Markdown table of what each backend can do."""
    names = list(ABILITIES)
    rows = [["request", *(f"`{name}`" for name in names)], ["---"] * (len(names) + 1)]
    for request, words in REQUESTS.items():
        rows.append([words, *("yes" if request in ABILITIES[name] else "no" for name in names)])
    for i, words in enumerate(("time grows as", "memory grows as")):
        rows.append([words, *(COSTS[name][i] for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _local_is_faster(needs: Needs, plan: Plan, num_tokens: int) -> bool:
    on_cpu = "cpu" in needs
    if isinstance(plan.pattern, Full):
        return on_cpu and plan.is_padded and num_tokens >= CPU_TOKENS_FULL
    least = plan.pattern.size + CPU_TOKENS_BEYOND_WINDOW if on_cpu else ACCELERATOR_TOKENS
    return num_tokens >= least


def _device_class(x: Tensor) -> str:
    return "cpu" if x.device.type == "cpu" else "accelerator"


def _dtype_class(dtype: torch.dtype) -> str:
    return {torch.float64: "float64", torch.float32: "float32"}.get(dtype, "half")
