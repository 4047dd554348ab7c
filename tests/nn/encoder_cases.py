"""Encoders with every option, for the properties that all of them have."""

from functools import partial

import torch
from torch import Tensor

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder
from hepattn.nn.helix_rotary import HelixRotary
from hepattn.nn.moe import MixtureOfExperts
from hepattn.nn.offset_bias import ALiBi, OffDiagonalPenalty, RelativeBias
from hepattn.nn.positional import Coordinate
from hepattn.nn.rotary import Rotary

LENGTHS = (9, 0, 14, 1)
PHI, Z = Coordinate("phi", kind="harmonic"), Coordinate("z")
ROTARY = partial(Rotary, coordinates=[PHI, Z], alpha=3.0, base=4.0)
HEADS = {"num_heads": 4}

VARIANTS = {
    "hybrid": {"norm_placement": "hybrid", "norm": "RMSNorm", "value_residual": "per_token"},
    "scaled": {"layer_scale": 1e-1, "value_residual": "learned", "norm": "DyT"},
    "post": {
        "value_residual": "fixed",
        "norm_placement": "post",
        "dense": partial(Dense, activation="geglu"),
    },
    "wrapped": {"window": 4, "wrap": True, "num_registers": 2},
    "registers": {"num_registers": 3},
    "interspersed": {"window": 4, "wrap": True, "num_registers": 3, "register_stride": 4},
    "interspersed_full": {"num_registers": 3, "register_stride": 4},
    "gate": {"attention": {"output_gate": True}},
    "laser": {"attention": {"laser": True}, "window": 4},
    "laser_shared": {"attention": {"laser": True, "num_value_heads": 2}, "num_registers": 1},
    "mixture": {"dense": MixtureOfExperts, "window": 4},
    "alibi": {"offset_bias": partial(ALiBi, learnable=True), "window": 6},
    "alibi_registers": {
        "offset_bias": ALiBi,
        "wrap": True,
        "num_registers": 2,
        "register_stride": 3,
    },
    "relative": {"offset_bias": partial(RelativeBias, max_offset=2), "window": 6, "wrap": True},
    "penalty": {"offset_bias": partial(OffDiagonalPenalty, free=1, learnable=True)},
    "rotary": {"rotary": ROTARY, "num_registers": 2, "register_stride": 3, "window": 6},
    "rotary_mixed": {
        "rotary": partial(ROTARY, mixed=True),
        "attention": {"num_value_heads": 2},
        "norm_placement": "hybrid",
    },
    "rotary_places": {"rotary": Rotary, "num_registers": 2, "register_stride": 3},
    "helix": {
        "rotary": partial(HelixRotary, max_phi=20.0, max_eta=2.0),
        "attention": {"position_init": 5.0, "head_dim": 6},
        "window": 6,
        "wrap": True,
    },
    "everything": {
        "attention": {"output_gate": True, "laser": True, "num_value_heads": 2},
        "dense": partial(MixtureOfExperts, num_experts=2),
        "window": 6,
        "wrap": True,
        "num_registers": 2,
        "register_stride": 5,
        "norm_placement": "hybrid",
        "value_residual": "per_token",
        "layer_scale": 0.1,
        "offset_bias": partial(ALiBi, learnable=True),
        "rotary": partial(ROTARY, mixed=True),
    },
}


def make_encoder(depth: int = 3, backend: str = "auto", **options: object) -> Encoder:
    """Sixteen features, four heads."""
    attention = AttentionOptions(**(HEADS | options.pop("attention", {})), backend=backend)
    return Encoder(16, depth, attention, **options)


def random_tokens(dim: int, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(*valid.shape, dim), valid


def random_positions(encoder: Encoder, valid: Tensor) -> Tensor | None:
    """Phi in [-pi, pi) and others of order one, for encoders that take them."""
    if not encoder.coordinates:
        return None
    num = len(encoder.coordinates) - 1
    low, span = torch.tensor([-torch.pi, *[-1.0] * num]), torch.tensor([2 * torch.pi, *[2.0] * num])
    return low + span * torch.rand(*valid.shape, num + 1)
