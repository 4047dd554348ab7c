"""Configs of the network parse: nested options, classes with and without arguments."""

import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from hepattn.models.token_classifier import TokenClassifier
from hepattn.nn.dense import Dense
from hepattn.nn.encoder import Encoder
from hepattn.nn.moe import MixtureOfExperts
from hepattn.nn.normalise import Feature
from hepattn.nn.offset_bias import ALiBi
from hepattn.nn.x_transformer import XTransformerEncoder
from hepattn.ops.attention import Registers

FEATURES = (Feature("r", scale=0.01), Feature("phi"))
ENCODER = "net.init_args.encoder.init_args"


def build(encoder: str, *args: str, name: str = "hepattn.nn.encoder.Encoder") -> nn.Module:
    """Build the network that a config describes, with more options from the command line."""
    config = f"""
        class_path: hepattn.models.token_classifier.TokenClassifier
        init_args:
          sort_by: phi
          position:
            class_path: hepattn.nn.positional.SinusoidalEncoding
            init_args:
              alpha: 10.0
              coordinates: [{{name: phi, kind: harmonic}}, {{name: r, scale: 0.01}}]
          encoder:
            class_path: {name}
            init_args: {encoder}
    """
    net = yaml.safe_load(config)
    net["init_args"]["features"] = [{"name": "r", "scale": 0.01}, {"name": "phi"}]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--net", type=nn.Module)
    parsed = parser.parse_args(["--net", yaml.safe_dump(net, default_flow_style=True), *args])
    # What a run writes down as its config builds the same network.
    again = parser.parse_string(parser.dump(parsed))
    nets = [parser.instantiate(values).net for values in (parsed, again)]
    assert str(nets[0]) == str(nets[1])
    return nets[0]


def test_defaults_need_no_words() -> None:
    net = build("{dim: 16, depth: 1}")
    assert isinstance(net, TokenClassifier)
    assert isinstance(net.encoder, Encoder)
    assert net.encoder.layers[0].attention.options.num_heads == 8
    assert net.encoder.layers[0].dense.contract.in_features == 32


def test_options_of_attention_and_of_the_dense_net_nest() -> None:
    net = build(
        """
        dim: 16
        depth: 2
        window: 4
        attention: {num_heads: 2, similarity_init: 3.5}
        dense: {class_path: hepattn.nn.dense.Dense, init_args: {hidden: 40, activation: geglu}}
    """.replace("\n", "\n" + 14 * " ")
    )
    layer = net.encoder.layers[1]
    assert layer.attention.options.num_heads == 2
    assert layer.attention.options.similarity_init == 3.5
    assert layer.dense.contract.in_features == 40


def test_a_class_without_options_is_its_name() -> None:
    net = build("{dim: 16, depth: 1, window: 4, offset_bias: hepattn.nn.offset_bias.ALiBi}")
    assert isinstance(net.encoder.offset_bias, ALiBi)


def test_experts_biases_and_rotations_nest() -> None:
    net = build(
        """
        dim: 16
        depth: 1
        num_registers: 2
        register_stride: 8
        dense:
          class_path: hepattn.nn.moe.MixtureOfExperts
          init_args:
            num_experts: 3
            expert: {class_path: hepattn.nn.dense.Dense, init_args: {hidden: 24}}
        offset_bias: {class_path: hepattn.nn.offset_bias.OffDiagonalPenalty, init_args: {free: 2}}
        rotary:
          class_path: hepattn.nn.rotary.Rotary
          init_args: {coordinates: [{name: phi, kind: harmonic}], alpha: 8}
    """.replace("\n", "\n" + 14 * " ")
    )
    experts = net.encoder.layers[0].dense
    assert isinstance(experts, MixtureOfExperts)
    assert len(experts.experts) == 3
    assert all(isinstance(e, Dense) and e.contract.in_features == 24 for e in experts.experts)
    assert net.encoder.offset_bias.free == 2
    assert [coordinate.name for coordinate in net.encoder.rotary.coordinates] == ["phi"]


def test_the_command_line_reaches_nested_options() -> None:
    net = build(
        "{dim: 16, depth: 1}",
        f"--{ENCODER}.attention.num_heads=4",
        f"--{ENCODER}.dense=hepattn.nn.dense.Dense",
        f"--{ENCODER}.dense.init_args.hidden=20",
    )
    assert net.encoder.layers[0].attention.options.num_heads == 4
    assert net.encoder.layers[0].dense.contract.in_features == 20


def test_the_peer_encoder_is_another_class_path() -> None:
    peer = "hepattn.nn.x_transformer.XTransformerEncoder"
    net = build("{dim: 16, depth: 1, num_heads: 4, laser: true}", name=peer)
    assert isinstance(net.encoder, XTransformerEncoder)


@pytest.mark.parametrize(
    "encoder",
    [
        "{dim: 16, depth: 1, attention: {heads: 2}}",
        "{dim: 16, depth: 1, attention: {num_heads: 5, num_value_heads: 2}}",
        "{dim: 16, depth: 1, dense: {class_path: hepattn.nn.dense.Dense, init_args: {hiden: 3}}}",
        "{dim: 16, depth: 1, num_heads: 2}",
    ],
)
def test_misspelt_and_senseless_options_stop_the_parser(encoder: str) -> None:
    with pytest.raises(Exception, match=r"heads|num_value_heads=2|hiden"):
        build(encoder)


def test_the_documented_encoder_is_built_as_it_stands() -> None:
    page = Path(__file__).parents[2] / "docs" / "concepts" / "encoder.md"
    (text,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    config = yaml.safe_load(text)["encoder"]
    assert config["class_path"] == "hepattn.nn.encoder.Encoder"
    options = yaml.safe_dump(config["init_args"], default_flow_style=True)
    net = build(options)
    assert net.encoder.register_layout == Registers(8, 128)
    assert net.encoder.offset_bias.log_slopes.requires_grad
