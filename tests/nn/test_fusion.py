"""What is known of an event and of its objects is fused as the modes say."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.fusion import (
    CrossAttention,
    EmbeddingFusion,
    EmbeddingFusionOptions,
    OutputFusion,
    OutputFusionOptions,
    PairLinear,
)

DIM, NUM_OBJECTS, NUM_COLUMNS = 8, 4, 5
OUTPUT_MODES = ("add", "cat", "learn", "gate", "attn")
EMBEDDING_MODES = ("sum", "mean", "add", "cat", "cat_proj", "learn", "gate", "attn", "res_attn")


def make_outputs(mode: str, num_outputs: int = 3) -> OutputFusion:
    options = OutputFusionOptions(mode, dim=DIM if mode == "attn" else 64)
    return OutputFusion(num_outputs, options).eval()


def make_embeddings(mode: str) -> EmbeddingFusion:
    return EmbeddingFusion(DIM, EmbeddingFusionOptions(mode)).eval()


def draw(fusion: nn.Module, *shape: int) -> tuple[Tensor, Tensor]:
    """Something of events, and something of this shape to fuse it with."""
    columns = (NUM_COLUMNS, DIM) if fusion.has_attention else (shape[-1],)
    flat = torch.randn(shape[0], *columns, requires_grad=True)
    return flat, torch.randn(shape, requires_grad=True)


def map_joined(linear: PairLinear, *parts: Tensor) -> Tensor:
    """The one linear map that the two are."""
    weight = torch.cat([linear.flat.weight, linear.jagged.weight], 1)
    return F.linear(torch.cat(parts, -1), weight, linear.flat.bias)


def gated(fusion: nn.Module, flat: Tensor, jagged: Tensor) -> Tensor:
    gate = map_joined(fusion.fuse.gate, flat, jagged).sigmoid()
    return gate * flat + (1 - gate) * jagged


def attend_by_torch(cross: CrossAttention, flat: Tensor, jagged: Tensor) -> Tensor:
    """Softmax attention, one head after the other."""
    layer, out = cross.attention, []
    key, value = layer.key_value(flat).chunk(2, -1)
    query, E = layer.query(jagged), layer.head_dim
    for head in range(layer.options.num_heads):
        part = slice(head * E, (head + 1) * E)
        weight = (query[..., part] @ key[..., part].mT / E**0.5).softmax(-1)
        out.append(weight @ value[..., part])
    return layer.out(torch.cat(out, -1))


FORMULAS = {
    "sum": lambda _, flat, jagged: jagged + flat,
    "add": lambda _, flat, jagged: jagged + flat,
    "mean": lambda _, flat, jagged: (jagged + flat) / 2,
    "learn": lambda _, flat, jagged: torch.lerp(jagged, flat, torch.tensor(0.5).sigmoid()),
    "gate": gated,
}


@pytest.mark.parametrize("mode", ["add", "learn", "gate", "cat"])
def test_outputs_are_fused_by_the_formula(mode: str) -> None:
    fusion = make_outputs(mode)
    flat, jagged = draw(fusion, 6, 3)
    if mode == "cat":
        expected = map_joined(fusion.fuse, flat, jagged)
    else:
        expected = FORMULAS[mode](fusion, flat, jagged)
    assert_close(fusion(flat, jagged), expected)


@pytest.mark.parametrize("mode", [*FORMULAS, "cat", "cat_proj"])
def test_the_embedding_of_an_event_is_fused_with_each_object(mode: str) -> None:
    fusion = make_embeddings(mode)
    flat, jagged = draw(fusion, 6, NUM_OBJECTS, DIM)
    found = fusion(flat, jagged)
    for number, one in enumerate(jagged.unbind(1)):
        if mode == "cat":
            expected = torch.cat([one, flat], -1)
        elif mode == "cat_proj":
            expected = map_joined(fusion.fuse, flat, one)
        else:
            expected = FORMULAS[mode](fusion, flat, one)
        assert_close(found[:, number], expected)


@pytest.mark.parametrize("mode", ["attn", "res_attn"])
def test_objects_look_at_the_columns_of_their_event(mode: str) -> None:
    fusion = make_embeddings(mode)
    flat, jagged = draw(fusion, 6, NUM_OBJECTS, DIM)
    expected = attend_by_torch(fusion.fuse, flat, jagged)
    assert_close(fusion(flat, jagged), expected + (jagged if mode == "res_attn" else 0))


def test_an_output_looks_at_the_columns_and_keeps_what_it_was() -> None:
    fusion = make_outputs("attn")
    flat, jagged = draw(fusion, 6, 3)
    query = fusion.query(jagged)[:, None]
    seen = attend_by_torch(fusion.fuse, flat, query)
    assert_close(fusion(flat, jagged), fusion.out(query + seen)[:, 0])


@pytest.mark.parametrize("num_outputs", [1, 3])
@pytest.mark.parametrize("mode", OUTPUT_MODES)
def test_both_outputs_matter(mode: str, num_outputs: int) -> None:
    fusion = make_outputs(mode, num_outputs)
    flat, jagged = draw(fusion, 6, num_outputs)
    out = fusion(flat, jagged)
    assert out.shape == (6, num_outputs)
    out.square().sum().backward()
    assert_all_get_gradients(fusion, flat, jagged)


@pytest.mark.parametrize("mode", EMBEDDING_MODES)
def test_both_embeddings_matter(mode: str) -> None:
    fusion = make_embeddings(mode)
    flat, jagged = draw(fusion, 6, NUM_OBJECTS, DIM)
    fusion(flat, jagged).square().sum().backward()
    assert_all_get_gradients(fusion, flat, jagged)


def assert_all_get_gradients(fusion: nn.Module, *inputs: Tensor) -> None:
    for x in (*inputs, *fusion.parameters()):
        assert x.grad.abs().max() > 1e-6


def test_an_embedding_of_an_event_reaches_no_other_event() -> None:
    for mode in EMBEDDING_MODES:
        fusion = make_embeddings(mode)
        flat, jagged = draw(fusion, 3, NUM_OBJECTS, DIM)
        fusion(flat, jagged)[1].sum().backward()
        assert (flat.grad[[0, 2]] == 0).all()


def test_halves_are_joined_to_a_whole() -> None:
    assert EmbeddingFusionOptions("cat").dims(7) == (3, 4)
    assert EmbeddingFusionOptions("cat_proj").dims(7) == (7, 7)


@pytest.mark.parametrize("options", [EmbeddingFusionOptions, OutputFusionOptions])
def test_options_of_attention_without_attention_are_refused(options: type) -> None:
    with pytest.raises(ValueError, match=r"attention has no effect with mode='add'; use 'attn'"):
        options("add", attention=AttentionOptions(num_heads=2))


def test_a_dimension_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="dim=32 has no effect with mode='gate'"):
        OutputFusionOptions("gate", dim=32)
    with pytest.raises(ValueError, match="dim=0 must be at least 1"):
        OutputFusionOptions("attn", dim=0)
