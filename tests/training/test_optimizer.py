"""The networks of events put their parameters into groups, whatever their options."""

from collections.abc import Callable
from functools import partial

import pytest
from torch import nn

from hepattn.models.deep_sets import DeepSets, FeatureDeepSets
from hepattn.models.event_particle_transformer import BLOCK, EventParticleTransformer
from hepattn.models.feature_transformer import FeatureTransformer
from hepattn.models.fused import FusedNetwork
from hepattn.models.mlp import MLP
from hepattn.models.resnet import ResNet
from hepattn.models.set_transformer import SetTransformer
from hepattn.nn.feature_embedding import EmbeddingOptions
from hepattn.nn.fusion import EmbeddingFusionOptions, OutputFusionOptions
from hepattn.nn.object_embedding import ObjectEmbeddingOptions
from hepattn.nn.piecewise_linear import PiecewiseLinearOptions
from hepattn.nn.set_block import SetBlockOptions
from hepattn.training.optimizer import parameter_groups
from models.event_transformer_cases import SCHEMA

LEARNED = EmbeddingOptions(
    numeric="piecewise_linear",
    piecewise_linear=PiecewiseLinearOptions(num_bins=3, bins="learned", layernorm=True),
)
TYPES = ObjectEmbeddingOptions(add_particle_types=True, embedding=LEARNED)
MIXED = ObjectEmbeddingOptions(
    flat_embedding=EmbeddingOptions(), flat_fusion=EmbeddingFusionOptions(mode="learn")
)
SETS = partial(SetTransformer, dim=8, encoder_depth=1, decoder_depth=1)
PARTICLES = partial(EventParticleTransformer, dim=8, depth=1, num_class_blocks=1)
COLUMNS = partial(FeatureTransformer, dim=8, depth=1)
FLAT = partial(MLP, hidden=(8,), batchnorm=True)
NETWORKS = {
    "mlp": FLAT,
    "mlp without embeddings": partial(FLAT, embedding=EmbeddingOptions(disable_embeddings=True)),
    "mlp of learned bins": partial(FLAT, embedding=LEARNED),
    "mlp of a learned sum": partial(FLAT, embedding=EmbeddingOptions(reduction="conv1d")),
    "resnet": partial(ResNet, hidden=(8, 6)),
    "deep sets": partial(DeepSets, encoder=(8,), decoder=(8,)),
    "deep sets with types": partial(DeepSets, encoder=(8,), decoder=(8,), embedding=TYPES),
    "deep sets that blend": partial(DeepSets, encoder=(8,), decoder=(8,), embedding=MIXED),
    "deep sets of columns": partial(FeatureDeepSets, encoder=(8,), decoder=(8,)),
    "class token": COLUMNS,
    "no class token": partial(COLUMNS, use_cls_token=False, remove_first_attn_layernorm=True),
    "pooled sets": SETS,
    "sets with seeds for objects": partial(SETS, seed_strategy="particles", embedding=TYPES),
    "sets with layer norms": partial(SETS, block=SetBlockOptions(use_setnorm=False)),
    "particles": partial(PARTICLES, embedding=TYPES),
    "particles without pairs": partial(PARTICLES, particle_attention=None),
    "particles without residual": partial(PARTICLES, block=BLOCK, first_attn_no_residual=True),
    **{
        f"fused by {mode}": partial(
            FusedNetwork,
            flat=None if mode == "attn" else FLAT,
            jagged=PARTICLES,
            fusion=OutputFusionOptions(mode=mode),
        )
        for mode in ("add", "cat", "learn", "gate", "attn")
    },
}
MATRICES = ("weight", "table")  # of linear maps, and the vectors of categories
BARE = {"class_token", "seeds", "types", "edges"}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_matrices_of_event_networks_decay_and_nothing_else(make: Callable[..., nn.Module]) -> None:
    net = make(SCHEMA, 2)
    decayed, plain = parameter_groups(net)
    expected = {
        name
        for name, parameter in net.named_parameters()
        if parameter.ndim > 1 and name.rpartition(".")[2] in MATRICES
    }
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert {names[parameter] for parameter in decayed["params"]} == expected
    assert {names[parameter] for parameter in plain["params"]} == set(names.values()) - expected


def test_the_networks_above_have_every_kind_of_bare_parameter() -> None:
    names = {
        name.rpartition(".")[2]
        for make in NETWORKS.values()
        for name, _ in make(SCHEMA, 2).named_parameters()
    }
    assert names >= BARE
