"""When the events of a batch attend by themselves instead of with padding."""

# B events, N particles, D features

import pytest
import torch
from torch import Tensor

from hepattn.nn import particle_encoder
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.packing import make_packing
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from hepattn.nn.particle_encoder import ParticleEncoder

B, N, D = 24, 3, 8
VALID = torch.tensor([True, True, False]).expand(B, N)
PAIRS = PairOptions(hidden=(6,))


def make(drop_path: float = 0.0, num_biased_blocks: int = 2) -> ParticleEncoder:
    heads = AttentionOptions(num_heads=2)
    block = BlockOptions(attention=heads, activation_dropout=0.0, dropout=0.0, drop_path=drop_path)
    return ParticleEncoder(D, 2, 1, block, PAIRS, num_biased_blocks)


@torch.no_grad()
def summarise(encoder: ParticleEncoder) -> Tensor:
    """Summaries of B events that are all alike."""
    x, vectors = torch.randn(2, D), torch.rand(N, 4) + torch.tensor([3.0, 0, 0, 0])
    return encoder(x.repeat(B, 1), vectors.expand(B, N, 4), VALID, make_packing(VALID))


def count_plans(monkeypatch: pytest.MonkeyPatch, encoder: ParticleEncoder) -> int:
    """How many packed plans a forward pass makes."""
    plans = []
    make_plan = particle_encoder.make_packed_plan

    def watch(*args: object) -> object:
        plans.append(make_plan(*args))
        return plans[-1]

    monkeypatch.setattr(particle_encoder, "make_packed_plan", watch)
    summarise(encoder)
    return len(plans)


def test_events_are_packed_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_plans(monkeypatch, make().eval()) == 1


def test_a_block_without_bias_keeps_events_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_plans(monkeypatch, make(num_biased_blocks=1).eval()) == 0


def test_training_drops_events_one_by_one_also_without_gradients() -> None:
    found = summarise(make(drop_path=0.5).train())
    assert len(found.round(decimals=4).unique(dim=0)) > 2
