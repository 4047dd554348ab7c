"""LinParT: what it shares with ParT and what it does not."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.linear_particle_transformer import LinearParticleTransformer
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.normalise import Feature
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from models.jet_network_cases import FEATURES, random_jets

PAIRS = PairOptions(hidden=(8,))
BOTH = pytest.mark.parametrize("pairs", [None, PAIRS], ids=["alone", "pairs"])


def make(pairs: PairOptions | None, **options: object) -> LinearParticleTransformer:
    block = BlockOptions(attention=AttentionOptions(num_heads=2))
    options = {"compression": 4, "max_particles": 16, "embedding": (8, 16), "depth": 2} | options
    return LinearParticleTransformer(FEATURES, 3, block=block, pairs=pairs, **options).eval()


def answer(net: LinearParticleTransformer, jets: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return net(*jets)


@BOTH
def test_padded_length_never_changes_the_logits(pairs: PairOptions | None) -> None:
    net, jets = make(pairs), random_jets(9, 0, 3)
    longer = [torch.cat([part, torch.zeros_like(part)], 1) for part in jets]
    assert_close(answer(net, longer), answer(net, jets), atol=1e-6, rtol=1e-5)


@BOTH
def test_the_order_of_the_particles_matters(pairs: PairOptions | None) -> None:
    net, jets = make(pairs), random_jets(12)
    turned = [part.flip(1) for part in jets]
    assert (answer(net, turned) - answer(net, jets)).abs().max() > 1e-3


def test_blocks_may_share_their_mixtures() -> None:
    own, shared = make(None), make(None, shared=True)
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
        make(None, compression=17)
