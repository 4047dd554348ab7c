"""What an image of a face says as a whole."""

# B events, N cells

import torch
from torch import Tensor

NUM_MOMENTS = 8
LIGHT_CENTRE, LIGHT_SPREAD = 4.0, 2.0  # of the logarithm of the mean number of photons


def image_moments(light: Tensor, seen: Tensor, place: Tensor) -> Tensor:
    """Moments of the order of one: of the light, of what is seen, and of where the light is.

    Args:
        light: Photons of each cell, zero where it is not seen (B, N).
        seen: Cells that are seen (B, N).
        place: Where the cells are, of the order of one (N, 3) or (B, N, 3).

    Returns:
        The logarithm of the mean light, the visible share, and the mean place weighed by the
        photons and by their squares, which follow the brightest (B, NUM_MOMENTS), in float32.
    """
    with torch.autocast(light.device.type, enabled=False):
        share = seen.float().mean(1)  # (B)
        mean = (light.mean(1) / share.clamp(min=1e-6)).log1p()
        centres = [
            (weight.unsqueeze(-1) * place).sum(1) / weight.sum(1, keepdim=True).clamp(min=1e-6)
            for weight in (light, light.square())
        ]
        whole = torch.stack([(mean - LIGHT_CENTRE) / LIGHT_SPREAD, share], 1)
        return torch.cat([whole, *centres], 1)
