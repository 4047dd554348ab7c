"""The residual network is its formula on the embedded columns of an event."""

from functools import partial

import pytest
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.models.resnet import ResidualBlock, ResNet
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.feature_embedding import EmbeddingOptions
from models.event_network_cases import SCHEMA, check_gradients, draw_events, settle

make = partial(ResNet, SCHEMA, 2, hidden=(8, 8))


def normalise(norm: MaskedBatchNorm, x: Tensor) -> Tensor:
    spread = (norm.running_var + 1e-5).sqrt()
    return (x - norm.running_mean) / spread * norm.weight + norm.bias


def parts(block: ResidualBlock, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in block.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(("hidden", "block_size"), [((8, 8), 2), ((8, 6), 3), ((8,), 1)])
def test_blocks_add_layers_of_norm_then_activation_then_linear(
    hidden: tuple[int, ...], block_size: int
) -> None:
    net = settle(make(hidden=hidden, block_size=block_size))
    inputs = draw_events()
    x = net.embedding(inputs[0])
    for block, dim in zip(net.blocks, hidden, strict=True):
        norms, linears = parts(block, MaskedBatchNorm), parts(block, nn.Linear)
        assert len(norms) == len(linears) == block_size
        y = x
        for norm, linear in zip(norms, linears, strict=True):
            y = F.relu(normalise(norm, y)) @ linear.weight.T + linear.bias
        x = y + (x if x.shape[-1] == dim else x @ block.shortcut.weight.T)
    x = F.relu(normalise(net.norm, x))
    assert_close(net(*inputs), x @ net.head.weight.T + net.head.bias)


def test_dropout_stands_between_the_linear_maps_of_a_block_only() -> None:
    names = [type(layer).__name__ for layer in ResidualBlock(4, 4, dropout=0.5).layers]
    layer = ["MaskedBatchNorm", "ReLU", "Linear"]
    assert names == [*layer, "Dropout", *layer]


def test_without_batch_norm_there_is_none() -> None:
    net = make(batchnorm=False, activation="GELU")
    assert not any(isinstance(layer, MaskedBatchNorm) for layer in net.modules())
    assert net(*draw_events()).shape == (4, 2)


def test_a_wider_embedding_is_projected_to_the_first_block() -> None:
    assert isinstance(make().project, nn.Identity)
    assert make(embedding_dim=5).project.in_features == 5


def test_outputs_may_have_an_activation() -> None:
    plain, active = make().eval(), make(output_activation="Tanh").eval()
    active.load_state_dict(plain.state_dict())
    assert_close(active(*draw_events()), plain(*draw_events()).tanh())


def test_one_event_can_be_trained_on() -> None:
    check_gradients(make())


def test_it_needs_columns_of_the_event_and_a_block() -> None:
    with pytest.raises(ValueError, match="ResNet classifies columns of the event"):
        ResNet(EventSchema(objects=SCHEMA.objects, max_objects=SCHEMA.max_objects), 1)
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        make(hidden=())
    with pytest.raises(ValueError, match="block_size=0"):
        make(block_size=0)
    with pytest.raises(ValueError, match="leaves several vectors"):
        make(embedding=EmbeddingOptions(reduction="none"))
    with pytest.raises(ValueError, match="embedding_dim=8 has no effect"):
        make(embedding_dim=8, embedding=EmbeddingOptions(disable_embeddings=True))
