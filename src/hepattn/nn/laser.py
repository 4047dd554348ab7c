"""LASER attention: attend over exponentials of the values (arXiv:2411.03493)."""

# B events, H heads, Hk value heads, M queries, N keys, E head features

import torch
from torch import Tensor

# A value this far below the event's maximum counts as being just this far below it: its
# exponential, 1e-26, and the inverse of it that the backward needs both keep clear of the limits
# of float32 and bfloat16, and so does the sum over all features in the attention's backward.
RANGE = 60.0


def exponentiate(values: Tensor, key_valid: Tensor) -> tuple[Tensor, Tensor]:
    """Turn values into exponentials to attend over, in float32 at least.

    The largest real value of an event, by head and feature, is subtracted first. The answer does
    not depend on what is subtracted, so that it gets no gradient.

    Args:
        values: Values (B, Hk, N, E).
        key_valid: True for real keys (B, N).

    Returns:
        exp(values - peak) (B, Hk, N, E) in the dtype of the values, at most one, and the
        peak (B, Hk, 1, E); the peak of an event without keys is zero.

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
    hidden = ~key_valid[:, None, :, None]  # (B, 1, N, 1)
    peak = exact.detach().masked_fill(hidden, float("-inf")).amax(2, keepdim=True)  # (B, Hk, 1, E)
    peak = peak.masked_fill(peak.isinf(), 0.0)
    # Only what stands in padded slots can exceed the peak.
    return (exact - peak).clamp(-RANGE, 0.0).exp().to(values.dtype), peak


def logarithm(attended: Tensor, peak: Tensor) -> Tensor:
    """Undo `exponentiate` after attention.

    Args:
        attended: Weighted sums of exponentials (B, H, M, E).
        peak: What was subtracted from the values (B, Hk, 1, E), with Hk dividing H.

    Returns:
        log(attended) + peak (B, H, M, E), and zero where nothing was attended to.
    """
    peak = peak.repeat_interleave(attended.shape[1] // peak.shape[1], 1)  # (B, H, 1, E)
    saw = attended > 0
    # The branch that is not taken must have a finite gradient as well.
    out = attended.to(peak.dtype).where(saw, 1.0).log() + peak
    return out.where(saw, 0.0).to(attended.dtype)
