"""LinParT: what it shares with ParT and what it does not."""

import pytest
import torch

from hepattn.models.linear_particle_transformer import LinearParticleTransformer
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.normalise import Feature
from hepattn.nn.particle_block import BlockOptions
from models.jet_network_cases import FEATURES, random_jets


def make(**options: object) -> LinearParticleTransformer:
    block = BlockOptions(attention=AttentionOptions(num_heads=2))
    options = {"compression": 4, "max_particles": 16, "embedding": (8, 16), "depth": 2} | options
    return LinearParticleTransformer(FEATURES, 3, block=block, **options).eval()


def test_blocks_may_share_their_mixtures() -> None:
    own, shared = make(), make(shared=True)
    difference = sum(p.numel() for p in own.parameters()) - sum(
        p.numel() for p in shared.parameters()
    )
    assert difference == 2 * 4 * 16


def test_published_variants_have_a_rank_of_32_and_16() -> None:
    features = [Feature(f"f{i}") for i in range(17)]
    for compression, rank in ((4, 32), (8, 16)):
        net = LinearParticleTransformer(features, 10, compression=compression, depth=1)
        assert net.encoder.blocks[0].attention.mixing.key.shape == (rank, 128)


def test_compression_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="compression=17 must be 1 to max_particles=16"):
        make(compression=17)


def test_padding_may_be_longer_than_the_network_knows_but_not_the_jets() -> None:
    net, (x, vectors, valid) = make(), random_jets(18)
    valid[:, 16:] = False
    assert net(x, vectors, valid).isfinite().all()
    with pytest.raises(ValueError, match="an event has 18 tokens, more than max_tokens=16"):
        net(x, vectors, torch.ones_like(valid))
