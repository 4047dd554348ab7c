"""Layers exported to ONNX give the same answer for events of any number and length."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.nn.attention import AttentionOptions
from hepattn.nn.channel_attention import ConvBlockAttention, NonLocal, SqueezeExcite
from hepattn.nn.conv import ConvNeXtBlock, MaskedConv
from hepattn.nn.encoder import Encoder
from hepattn.nn.helix_rotary import HelixRotary
from hepattn.nn.offset_bias import ALiBi

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
pytest.importorskip("onnxscript", reason="needs the extra deploy")

HEADS = AttentionOptions(num_heads=4)
VARIANTS = {
    "window": {"window": 8, "wrap": True, "num_registers": 2, "register_stride": 4},
    "bias of the distance": {
        "offset_bias": ALiBi,
        "attention": AttentionOptions(num_heads=4, num_value_heads=2, output_gate=True),
        "norm_placement": "hybrid",
        "norm": "RMSNorm",
    },
    "class token": {
        "num_registers": 1,
        "read_out": "cls",
        "rotary": HelixRotary,
        "attention": AttentionOptions(num_heads=2, laser=True, position_init=5.0),
        "value_residual": "per_token",
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.parametrize("name", VARIANTS)
def test_an_exported_encoder_gives_the_same_answer_for_every_batch(
    name: str, tmp_path: Path
) -> None:
    encoder = Encoder(16, 2, **{"attention": HEADS, **VARIANTS[name]}).eval()
    events, tokens = torch.export.Dim("events"), torch.export.Dim("tokens", min=2)
    inputs = draw_inputs(encoder, [30, 17])
    path = tmp_path / "encoder.onnx"
    torch.onnx.export(
        encoder,
        kwargs=inputs,
        dynamo=True,
        dynamic_shapes={key: {0: events, 1: tokens} for key in inputs},
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(path)
    for lengths in ([30, 17], [12, 5, 0], [100]):
        inputs = draw_inputs(encoder, lengths)
        (found,) = session.run(None, {key: x.numpy() for key, x in inputs.items()})
        assert_close(torch.from_numpy(found), encoder(**inputs).detach(), atol=1e-5, rtol=1e-4)


class Images(nn.Module):
    """A block of convolutions with attention, then smaller images."""

    def __init__(self, attention: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.block = ConvNeXtBlock(4, 3, attention=attention)
        self.conv = MaskedConv(4, 8, 2, stride=2)

    def forward(self, x: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(self.block(x, visible), visible)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
@pytest.mark.parametrize("attention", [SqueezeExcite, ConvBlockAttention, NonLocal])
def test_exported_convolutions_know_the_masked_cells(
    attention: Callable[[int], nn.Module], tmp_path: Path
) -> None:
    network = Images(attention).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    inputs = draw_images(3)
    path, events = tmp_path / "images.onnx", {0: torch.export.Dim("events")}
    torch.onnx.export(
        network,
        kwargs=inputs,
        dynamo=True,
        dynamic_shapes=dict.fromkeys(inputs, events),
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(path)
    for num_events in (3, 5):
        inputs = draw_images(num_events)
        found = session.run(None, {key: x.numpy() for key, x in inputs.items()})
        x, visible = network(**inputs)
        assert torch.equal(torch.from_numpy(found[1]), visible)
        assert_close(torch.from_numpy(found[0]), x.detach(), atol=1e-5, rtol=1e-4)


def draw_images(num_events: int) -> dict[str, Tensor]:
    visible = torch.rand(num_events, 5, 6) < 0.5
    return {"x": torch.randn(num_events, 5, 6, 4), "visible": visible}


def draw_inputs(encoder: Encoder, lengths: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    B, N = len(lengths), max(lengths)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    inputs = {
        "x": draw(B, N, encoder.dim),
        "valid": torch.arange(N) < torch.tensor(lengths)[:, None],
        "key": draw(B, N).mul(8).floor(),  # with ties
    }
    if encoder.coordinates:
        inputs["positions"] = draw(B, N, len(encoder.coordinates))
    return inputs
