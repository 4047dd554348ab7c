"""Who can do what: the one place from which choice, refusals and the documented table come."""

from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from hepattn.ops.attention.pattern import Full, Window
from hepattn.ops.attention.plan import Plan

BackendName = Literal["auto", "sdpa", "local", "flex", "flash"]

# What a call may ask for, and how the table words it.
REQUESTS = {
    "full": "full attention",
    "window": "window, open",
    "wrap": "window, wrapped at each event's own length",
    "padding": "padded events",
    "packed": "packed events",
    "cross": "cross-attention with query validity",
    "cross_window": "window of cross-attention, evenly spread or at given centres",
    "registers": "registers, leading or interspersed",
    "mask": "boolean mask of every pair, another one in each layer",
    "gqa": "fewer key and value heads than query heads",
    "bias": "dense additive bias with gradients",
    "packed_bias": "bias of the pairs within packed events, with gradients",
    "offset_bias": "bias of the distance (ALiBi, learned tables) with gradients",
    "dropout": "attention dropout",
    "cpu": "CPU, forward",
    "cpu_backward": "CPU, backward",
    "cuda": "GPU (CUDA or ROCm)",
    "other_device": "other accelerators",
    "compiled_bias": "biases that need gradients in a compiled graph",
    "export": "export to ONNX",
    "float64": "float64",
    "float32": "float32",
    "half": "bfloat16 and float16",
    "wide_heads": "more than 256 features a head",
}

# Every request a backend answers exactly, forward and (but for `cpu`) backward.
ABILITIES: dict[str, frozenset[str]] = {
    "sdpa": frozenset(REQUESTS),
    "local": frozenset(REQUESTS) - {"mask", "bias", "packed_bias", "dropout", "export"},
    # Torch gives biases that are computed in the same graph as `flex` no gradients.
    "flex": frozenset(REQUESTS)
    - {"packed_bias", "dropout", "cpu_backward", "other_device"}
    - {"compiled_bias", "export", "float64"},
    "flash": frozenset(
        {"full", "window", "wrap", "padding", "packed", "cross", "gqa", "dropout"}
        | {"cuda", "half"}
    ),
}

# Packages that a backend needs beyond torch, and the backends that miss theirs.
PACKAGES = {"flash": "flash_attn"}
MISSING = frozenset(name for name, package in PACKAGES.items() if find_spec(package) is None)

# How time and memory grow with the tokens N of an event and the window w.
COSTS = {
    "sdpa": ("N²", "N² with a window, a bias or an unfused kernel, else N"),
    "local": ("N · w; N² without a window", "N"),
    "flex": ("N · w; N² without a window", "N"),
    "flash": ("N · w; N² without a window", "N"),
}

# From this many tokens beyond the window's size on, `local` beats a dense mask on the CPU.
CPU_TOKENS_BEYOND_WINDOW = 256
# A loop over events beats padding for full attention on the CPU from this padded length on.
CPU_TOKENS_FULL = 256
# On other devices the fused kernels take over from dense masks at this length; above it a mask of
# every pair costs more than it saves. Not measured.
ACCELERATOR_TOKENS = 2048


# Label and value of each request, by its key in `REQUESTS`. They become words only in messages:
# to write a tensor's size down fixes it for a compiled graph.
Needs = dict[str, tuple[str, object]]


def describe(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None = None,
    offset_bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Needs:
    """List what a call of `attention` needs of a backend."""
    pattern = plan.pattern
    needs: Needs = {}
    if isinstance(pattern, Full):
        needs["full"] = ("", pattern)
    if isinstance(pattern, Window):
        needs["wrap" if pattern.wrap else "window"] = ("", pattern)
        if plan.is_cross:
            needs["cross_window"] = ("", "query_valid with a window")
    if plan.registers.num and (isinstance(pattern, Window) or offset_bias is not None):
        needs["registers"] = ("", plan.registers)
    if plan.is_padded:
        needs["padding"] = ("", "padded events")
    if plan.is_packed:
        needs["packed"] = ("", "packed events")
    if plan.is_cross:
        needs["cross"] = ("", "query_valid")
    if plan.only is not None:
        needs["mask"] = ("mask of shape ", tuple(plan.only.shape))
    if q.shape[1] != k.shape[1]:
        needs["gqa"] = ("num_key_heads=", k.shape[1])
    if bias is not None:
        needs["bias" if bias.dim() == 4 else "packed_bias"] = ("bias of shape ", tuple(bias.shape))
    if offset_bias is not None:
        needs["offset_bias"] = ("offset_bias of shape ", tuple(offset_bias.shape))
    biases = [x for x in (bias, offset_bias) if x is not None and x.requires_grad]
    if biases and torch.is_grad_enabled() and torch.compiler.is_compiling():
        needs["compiled_bias"] = ("", "biases that require gradients in a compiled graph")
    if dropout > 0:
        needs["dropout"] = ("dropout=", dropout)
    if q.device.type == "cpu":
        needs["cpu"] = ("device=", q.device)
        if torch.is_grad_enabled() and (biases or any(x.requires_grad for x in (q, k, v))):
            needs["cpu_backward"] = ("", "inputs that require gradients on the CPU")
    else:
        needs["cuda" if q.device.type == "cuda" else "other_device"] = ("device=", q.device)
    if torch.compiler.is_exporting():
        needs["export"] = ("", "a graph that is exported")
    needs[_dtype_class(q)] = ("dtype=", q.dtype)
    if q.shape[3] > 256:
        needs["wide_heads"] = ("head features ", q.shape[3])
    return needs


def words(needs: Needs) -> str:
    """Write down the values that a call asks for."""
    return ", ".join(f"{label}{value}" for label, value in needs.values())


def choose(needs: Needs, *, plan: Plan, num_tokens: int) -> str:
    """Pick the fastest backend that can do everything a call asks for.

    On the CPU `local` wins for windows in long events, and for full attention over events of
    different lengths or packed ones, since it spends no time on pairs that do not see each other;
    `flex` compiles for seconds and has no backward there. On other devices `flash` and then `flex`
    win where torch's own attention would need a mask, and `local` saves the memory of a window's.

    Args:
        needs: What the call asks for.
        plan: The batch's plan.
        num_tokens: Padded number of keys.
    """
    can = able(needs)
    if not can:
        raise ValueError(f"no backend can do all of: {words(needs)}")
    if "cpu" in needs:
        # The other order would write a length into graphs that are exported.
        wanted = ["local"] if "local" in can and _local_is_faster(plan, num_tokens) else []
    else:
        is_masked = bool(needs.keys() & {"window", "wrap", "padding", "packed", "mask"})
        is_long = num_tokens >= ACCELERATOR_TOKENS
        # `flash` would break a compiled graph.
        fused = ["flex"] if torch.compiler.is_compiling() else ["flash", "flex"]
        if needs.keys() & {"window", "wrap"}:
            fused.append("local")
        wanted = fused if is_masked and is_long else []
    return next((name for name in wanted if name in can), can[0])


def refuse(backend: str, needs: Needs) -> None:
    """Raise an error if a backend cannot do what a call asks for.

    Raises:
        ValueError: Naming the backend, the values that it cannot serve, what it lacks, and which
            backends can.
        ModuleNotFoundError: If the backend's package is not installed.
    """
    if backend not in ABILITIES:
        names = ", ".join(["auto", *ABILITIES])
        raise ValueError(f"backend={backend!r} must be one of: {names}")
    lacking = {need: value for need, value in needs.items() if need not in ABILITIES[backend]}
    others = ", ".join(able(needs)) or "none"
    if lacking:
        lacks = ", ".join(REQUESTS[need] for need in lacking)
        raise ValueError(
            f"backend={backend!r} cannot serve {words(lacking)}: it lacks {lacks}; "
            f"backends that can: {others}"
        )
    if not is_installed(backend):
        raise ModuleNotFoundError(
            f"backend={backend!r} needs the package {PACKAGES[backend]}, which is not installed; "
            f"backends that can: {others}"
        )


def able(needs: Needs) -> list[str]:
    """Name the installed backends that can do all that is needed."""
    return [
        name
        for name, abilities in ABILITIES.items()
        if abilities.issuperset(needs) and is_installed(name)
    ]


def is_installed(backend: str) -> bool:
    """Tell whether a backend's package is there."""
    return backend not in MISSING


def abilities_table() -> str:
    """Write the Markdown table of what each backend can do."""
    names = list(ABILITIES)
    rows = [["request", *(f"`{name}`" for name in names)], ["---"] * (len(names) + 1)]
    for request, words in REQUESTS.items():
        rows.append([words, *("yes" if request in ABILITIES[name] else "no" for name in names)])
    for i, words in enumerate(("time grows as", "memory grows as")):
        rows.append([words, *(COSTS[name][i] for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _local_is_faster(plan: Plan, num_tokens: int) -> bool:
    if isinstance(plan.pattern, Window):
        return num_tokens >= plan.pattern.size + CPU_TOKENS_BEYOND_WINDOW
    return (plan.is_padded or plan.is_packed) and num_tokens >= CPU_TOKENS_FULL


def _dtype_class(x: Tensor) -> str:
    dtype = x.dtype
    if dtype == torch.float64:
        return "float64"
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return "float32" if dtype == torch.float32 else "half"
