"""Small networks of the detector, and what their tests do to events."""

# B events, S sensors, T tokens

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.data.xec import XecBatch
from hepattn.experiments.xec.encoder import EncoderOptions

TINY = EncoderOptions(dim=16, width=4, hex_width=8, num_heads=2, closeup=5)
JUNK = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])


class Seen(NamedTuple):
    """What a network sees of events."""

    photons: Tensor
    time: Tensor
    valid: Tensor
    time_valid: Tensor


def seen(batch: XecBatch) -> Seen:
    return Seen(*batch[:4])


def covering_options(number: int = 12) -> list[dict[str, str]]:
    """Options of which each pair of outer face, pool and attention comes together once."""
    return [
        {
            "outer": ("split", "coarse", "finegrid")[i % 3],
            "pool": ("attention", "adaptive", "bilinear")[i // 4 % 3],
            "attention": ("none", "se", "cbam", "nonlocal")[i % 4],
            "hex_mixer": ("depthwise", "gat")[(i + i // 4) % 2],
            "pos_embed": ("learnable", "sinusoidal", "rotary", "alibi", "geometric")[i % 5],
            "stem": ("patch", "same", "shrinking")[(i + i // 3) % 3],
        }
        for i in range(number)
    ]


def describe(options: dict[str, str]) -> str:
    return "-".join(options.values())


def settle(net: nn.Module) -> nn.Module:
    """Let a network be as after a training, with nothing left at zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def hide(given: Seen, share: float = 0.3) -> Seen:
    """Hide some sensors, and the times of some more."""
    generator = torch.Generator().manual_seed(7)
    draws = torch.rand((2, *given.valid.shape), generator=generator)
    valid = given.valid & (draws[0] > share)
    return given._replace(valid=valid, time_valid=given.time_valid & valid & (draws[1] > share))


def spoil(given: Seen, junk: float | None = None) -> Seen:
    """Put something else where nothing is to be seen: a number, or junk of all kinds."""
    if junk is None:
        junk = JUNK.repeat(given.valid.shape[1] // len(JUNK))  # (S)
    return given._replace(
        photons=torch.where(given.valid, given.photons, junk),
        time=torch.where(given.time_valid, given.time, junk),
    )


def gradients(net: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Gradients of a mix of the outputs in all parameters that have some."""
    net.zero_grad()
    weight = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output * weight).sum().backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
