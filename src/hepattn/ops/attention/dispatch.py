"""The one function that attends."""

# B events, H heads, Hk key heads, M queries, N keys, E head features, P pairs in packed events

import logging

import torch
from torch import Tensor

from hepattn.ops.attention.backend import BackendName, choose, describe, refuse, words
from hepattn.ops.attention.flash import flash
from hepattn.ops.attention.flex import flex
from hepattn.ops.attention.local import local
from hepattn.ops.attention.pattern import Full
from hepattn.ops.attention.plan import Plan
from hepattn.ops.attention.sdpa import dense_weights, sdpa

_LOG = logging.getLogger(__name__)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None = None,
    offset_bias: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
    backend: BackendName = "auto",
) -> Tensor:
    """Attend as the plan's pattern says: softmax(scale q k + biases) v over the visible keys.

    Every backend gives this answer, forward and backward, to the accuracy of the dtype, or raises.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H; query head h uses key head h // (H // Hk).
        v: Values (B, Hk, N, E).
        plan: The batch's plan, from `make_plan` or `make_packed_plan`.
        bias: Additive score bias (B or 1, H or 1, M, N); finite, or -inf where each query keeps a
            visible key without. With full attention within packed events it may be that of these
            pairs alone (H, P): event by event, query by query, which breaks a compiled graph.
        offset_bias: Score bias of the offset d from a query's centre to a key, in tokens
            (H or 1, 2K + 1): column d + K, beyond -K and K the first and the last one. Offsets do
            not count registers, pairs with a register get no bias, and in wrapped patterns d is
            the cyclic offset in [-((n - 1) // 2), n // 2].
        dropout: Probability with which an attention weight is dropped; 0 outside training.
        scale: Factor on the scores; None for 1 / sqrt(E).
        backend: How to compute it; "auto" picks the fastest that can. A graph that is exported
            holds what ONNX can express, whatever is asked for.

    Returns:
        (B, H, M, E); exactly zero at padded queries and at queries that see nothing.

    Raises:
        ValueError: If shapes do not fit together, or the backend cannot do what is asked for.
        TypeError: If q, k, v and the biases differ in dtype outside autocast.
        ModuleNotFoundError: If the backend's package is not installed.
    """
    _check_tensors(q, k, v, plan=plan, bias=bias, offset_bias=offset_bias)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    needs = describe(q, k, v, plan=plan, bias=bias, offset_bias=offset_bias, dropout=dropout)
    # What runs an exported graph has kernels of its own; it needs operators that it knows.
    if backend == "auto" or torch.compiler.is_exporting():
        backend = choose(needs, plan=plan, num_tokens=k.shape[2])
        if not torch.compiler.is_compiling() and _LOG.isEnabledFor(logging.DEBUG):
            _LOG.debug("attention backend %s for %s", backend, words(needs))
    else:
        refuse(backend, needs)
    match backend:
        case "local":
            return local(q, k, v, plan=plan, offset_bias=offset_bias, scale=scale)
        case "flex":
            return flex(q, k, v, plan=plan, bias=bias, offset_bias=offset_bias, scale=scale)
        case "flash":
            return flash(q, k, v, plan=plan, dropout=dropout, scale=scale)
    return sdpa(
        q,
        k,
        v,
        plan=plan,
        bias=bias,
        offset_bias=offset_bias,
        dropout=dropout,
        scale=scale,
    )


def attention_weights(
    q: Tensor,
    k: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None = None,
    offset_bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute the weights with which `attention` averages the values, for inspection.

    The result holds every pair, whatever backend computes the attention itself.

    Args:
        q: Queries (B, H, M, E).
        k: Keys (B, Hk, N, E), with Hk dividing H.
        plan: The batch's plan, from `make_plan` or `make_packed_plan`.
        bias: Additive score bias (B or 1, H or 1, M, N).
        offset_bias: Score bias of each offset (H or 1, 2K + 1), see `attention`.
        scale: Factor on the scores; None for 1 / sqrt(E).

    Returns:
        (B, H, M, N) in float32 or float64; rows sum to one, or to zero where nothing is visible.

    Raises:
        ValueError: If shapes do not fit together, or the bias is that of packed pairs alone.
    """
    if bias is not None and bias.dim() == 2:
        raise ValueError(
            f"bias of shape {tuple(bias.shape)} is of pairs within packed events; for the weights "
            "give one of every pair (B, H, M, N)"
        )
    _check_tensors(q, k, k, plan=plan, bias=bias, offset_bias=offset_bias)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    with torch.autocast(q.device.type, enabled=False):
        return dense_weights(q, k, plan=plan, bias=bias, offset_bias=offset_bias, scale=scale)


def _check_tensors(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: Plan,
    bias: Tensor | None,
    offset_bias: Tensor | None,
) -> None:
    if q.dim() != 4 or k.dim() != 4 or k.shape != v.shape:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} must be (B, H, M, E) and "
            "twice (B, Hk, N, E)"
        )
    B, H, M, E = q.shape
    if k.shape[0] != B or k.shape[3] != E:
        raise ValueError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in events and head features"
        )
    if k.shape[1] == 0 or H % k.shape[1]:
        raise ValueError(f"num_key_heads={k.shape[1]} must divide num_heads={H}")
    if plan.query_valid.shape != (B, M) or (B, k.shape[2]) != plan.key_valid.shape:
        raise ValueError(
            f"{B} events of {M} queries and {k.shape[2]} keys do not fit the plan, made for "
            f"queries {tuple(plan.query_valid.shape)} and keys {tuple(plan.key_valid.shape)}; "
            "make one plan a batch"
        )
    if q.device != plan.key_valid.device:
        raise ValueError(
            f"q is on {q.device}, the plan on {plan.key_valid.device}; make the plan from valid "
            "tensors on the device of the data"
        )
    dtypes = {x.dtype for x in (q, k, v, bias, offset_bias) if x is not None}
    if len(dtypes) > 1 and not torch.is_autocast_enabled(q.device.type):
        raise TypeError(f"q, k, v and the biases have dtypes {dtypes}; cast them to one")
    if bias is not None and bias.dim() == 2:
        _check_packed_bias(bias, plan, num_heads=H, has_offset_bias=offset_bias is not None)
    elif bias is not None:
        allowed = ((1, B), (1, H), (M,), (k.shape[2],))
        if bias.dim() != 4 or any(
            size not in sizes for size, sizes in zip(bias.shape, allowed, strict=True)
        ):
            raise ValueError(
                f"bias of shape {tuple(bias.shape)} must be ({B} or 1, {H} or 1, {M}, {k.shape[2]})"
            )
    if offset_bias is not None and (
        offset_bias.dim() != 2
        or offset_bias.shape[0] not in (1, H)
        or offset_bias.shape[1] % 2 == 0
    ):
        raise ValueError(
            f"offset_bias of shape {tuple(offset_bias.shape)} must be ({H} or 1, an odd number of "
            "offsets)"
        )


@torch.compiler.disable(reason="the sizes of packed events are no part of a graph")
def _check_packed_bias(bias: Tensor, plan: Plan, *, num_heads: int, has_offset_bias: bool) -> None:
    is_full = isinstance(plan.pattern, Full) and plan.only is None and not has_offset_bias
    if not (plan.is_packed and is_full):
        raise ValueError(
            f"bias of shape {tuple(bias.shape)} is of pairs within packed events: for Full() with "
            "a packed plan, without offset_bias or mask; give one of every pair (B, H, M, N)"
        )
    num_pairs = int((plan.events[:, 2] * plan.events[:, 4]).sum())
    if bias.shape != (num_heads, num_pairs):
        raise ValueError(
            f"bias of shape {tuple(bias.shape)} must be ({num_heads}, {num_pairs}): heads, and "
            "pairs of a query and a key of one event"
        )
