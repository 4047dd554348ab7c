"""LASER attention: attend over exponentials of the values (arXiv:2411.03493)."""

# B events, H heads, Hk value heads, M queries, N keys, E head features

import torch
from torch import Tensor

from hepattn.ops.attention import Plan
from hepattn.ops.attention.heads import repeat_heads

# A value this far below the event's maximum counts as being just this far below it: its
# exponential, 1e-26, and the inverse of it that the backward needs both keep clear of the limits
# of float32 and bfloat16, and so does the sum over all features in the attention's backward.
RANGE = 60.0


def exponentiate(values: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Turn values into exponentials to attend over, in float32 at least.

    The largest real value of an event, by head and feature, is subtracted first. The answer does
    not depend on what is subtracted, so that it gets no gradient.

    Args:
        values: Values (B, Hk, N, E).
        plan: What may attend to what.

    Returns:
        exp(values - peak) (B, Hk, N, E) in the dtype of the values, at most one, and the
        peak of each query's event (B, Hk, 1 or M, E); that of an event without keys is zero.

    Raises:
        TypeError: If attention would be computed in float16, whose range is too small.
    """
    device = values.device.type
    halved = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    if halved or values.dtype == torch.float16:
        raise TypeError(
            "laser=True needs the range of float32 or bfloat16, got float16; use precision "
            "bf16-mixed or 32-true"
        )
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    hidden = ~plan.key_valid[:, None, :, None]  # (B, 1, N, 1)
    real = exact.detach().masked_fill(hidden, float("-inf"))  # (B, Hk, N, E)
    key_peak, query_peak = _find_peaks(real, plan)
    # Only what stands in padded slots can exceed the peak.
    return (exact - key_peak).clamp(-RANGE, 0.0).exp().to(values.dtype), query_peak


def _find_peaks(real: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Largest of the values (B, Hk, N, E) of each key's and of each query's event."""
    if not plan.is_packed and real.shape[2]:
        peak = real.amax(2, keepdim=True)  # (B, Hk, 1, E)
        peak = peak.masked_fill(peak.isinf(), 0.0)
        return peak, peak
    B, Hk, _, E = real.shape
    of_keys, of_queries = (
        layout.event.clamp(min=0)[:, None, :, None].expand(B, Hk, -1, E)
        for layout in (plan.keys, plan.queries)
    )
    peaks = real.new_full((B, Hk, max(len(plan.events), 1), E), float("-inf"))
    peaks = peaks.scatter_reduce(2, of_keys, real, "amax")  # (B, Hk, events, E)
    peaks = peaks.masked_fill(peaks.isinf(), 0.0)
    return peaks.gather(2, of_keys), peaks.gather(2, of_queries)


def logarithm(attended: Tensor, peak: Tensor) -> Tensor:
    """Undo `exponentiate` after attention.

    Args:
        attended: Weighted sums of exponentials (B, H, M, E).
        peak: What was subtracted from the values (B, Hk, 1 or M, E), with Hk dividing H.

    Returns:
        log(attended) + peak (B, H, M, E), and zero where nothing was attended to.
    """
    peak = repeat_heads(peak, attended.shape[1])  # (B, H, 1 or M, E)
    saw = attended > 0
    # The branch that is not taken must have a finite gradient as well.
    out = attended.to(peak.dtype).where(saw, 1.0).log() + peak
    return out.where(saw, 0.0).to(attended.dtype)
