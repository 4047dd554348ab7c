"""Time the encoder of the liquid-xenon detector against a literal one, as its description has it.

Forward and backward of a batch of events, all of whose sensors are visible, without dropout.

- literal: `xec_literal`, channels first, with torch's encoder. Its images are made beforehand.
- equal maths: our encoder with the seed's options and the same weights; the tokens are equal.
- recommended: ours of the same size with its own defaults: patches of sensors, two images for
  the outer face, pooling by attention. It computes something else.
- small preset: the encoder of `mae.yaml`.

`THP_MEM_ALLOC_ENABLE=1` in the environment helps all of them.
"""

# B events, S sensors, T tokens, D features

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

import measure
import report
from hepattn.experiments.xec.encoder import EncoderOptions, XecEncoder
from hepattn.experiments.xec.scaling import ScalingOptions
from hepattn.physics import xec
from measure import BACKWARD, Seconds
from report import Goal
from xec_literal import Faces, LiteralEncoder

LITERAL, EQUAL, OWN, SMALL = "literal", "equal maths", "recommended", "small preset"
GOAL = 2.0
TOLERANCE = 1e-4  # how far equal tokens may be apart
SIZE = {"dim": 1024, "width": 32, "hex_width": 96, "num_fusion_layers": 2, "num_heads": 8}

Events = tuple[Tensor, ...]  # photons, times, which are known


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    events = draw_events(options)
    contenders = make_contenders(options)
    inputs = dict.fromkeys(contenders, (events,))
    inputs[LITERAL] = (images(contenders[EQUAL], events),)
    difference = compare(contenders, inputs)
    works = {name: partial(step, network, *inputs[name]) for name, network in contenders.items()}
    seconds: dict[str, Seconds] = {BACKWARD: measure.interleave(works, options)}
    result = measure.describe(options) | {
        "events": options.events,
        "parameters": {name: count(network) for name, network in contenders.items()},
        "largest_difference": difference,
        "seconds": seconds,
    }
    row = seconds[BACKWARD]
    goals = [
        Goal(f"{LITERAL} / {name}", row[LITERAL] / row[name], ">=", GOAL) for name in (EQUAL, OWN)
    ]
    result["goals"] = [goal.to_json() for goal in goals]
    title = (
        f"{options.events} events, {1e3 * row[LITERAL] / options.events:.0f} ms an event for the "
        f"literal encoder, {result['dtype']}, threads: {result['threads']}, clock: "
        f"{result['clock']}"
    )
    report.print_ratios(title, LITERAL, seconds)
    report.make_console().print(f"largest difference of equal tokens: {difference:.1e}")
    report.print_goals(goals)
    report.draw_bars(seconds, report.write(result, options, "xec"), "xenon encoders")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__)
    parser.add_argument("--events", type=int, help="events of a batch")
    options = measure.parse(parser, arguments)
    options.events = options.events or (2 if options.quick else 48)
    return options


def draw_events(options: argparse.Namespace) -> Events:
    """Draw photons over four decades, and times of the sensors that saw enough of them."""
    photons = 10 ** (4 * torch.rand(options.events, xec.NUM_SENSORS))
    time = 10 * torch.rand_like(photons)
    valid = torch.ones_like(photons, dtype=torch.bool)
    return tuple(x.to(options.device) for x in (photons, time, valid, photons > 100))


def make_contenders(options: argparse.Namespace) -> dict[str, nn.Module]:
    literal = LiteralEncoder(SIZE["dim"], SIZE["num_fusion_layers"], SIZE["num_heads"])
    equal = XecEncoder(
        EncoderOptions(
            **SIZE,
            norm_placement="post",
            outer="finegrid",
            stem="shrinking",
            pool="bilinear",
            closeup=0,
            moments=False,
            scaling=ScalingOptions(time_reference="first", sentinels=(-1.0, -1.0), validity=False),
        )
    )
    equal.load_state_dict(translate(literal.state_dict()) | extra_state(equal))
    networks = {
        LITERAL: literal,
        EQUAL: equal,
        OWN: XecEncoder(EncoderOptions(**SIZE)),
        SMALL: XecEncoder(),
    }
    return {name: network.to(options.device).eval() for name, network in networks.items()}


def extra_state(encoder: XecEncoder) -> dict[str, object]:
    """What a state holds beside weights."""
    return {k: v for k, v in encoder.state_dict().items() if not isinstance(v, Tensor)}


def translate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the literal encoder under the names of ours."""
    layers = ("stem.conv", "stem_norm", "first.0", "first.1", "down_norm", "down.conv")
    layers += ("last.0", "last.1", "last.2")
    names = {f"backbone.layers.{i}.": f"image.{name}." for i, name in enumerate(layers)}
    names |= {
        "hex_backbone.embed.0.": "hexagon.embed.",
        "hex_backbone.embed.1.": "hexagon.norm.",
        "hex_backbone.": "hexagon.",
        "pos_embed": "position.encoding.vectors",
        ".dwconv.": ".mixer.conv.",
        ".depthwise.": ".mixer.",
        ".channels.norm.": ".norm.",
        ".channels.pwconv1.": ".expand.",
        ".channels.pwconv2.": ".contract.",
        ".channels.grn.gamma": ".response.weight",
        ".channels.grn.beta": ".response.bias",
        ".self_attn.out_proj.": ".attention.out.",
        ".linear1.": ".dense.expand.",
        ".linear2.": ".dense.contract.",
        ".norm1.": ".attention_norm.",
        ".norm2.": ".dense_norm.",
    }
    ours = {}
    for key, value in state.items():
        for theirs, own in names.items():
            key = key.replace(theirs, own)
        if ".in_proj_" in key:
            stem, kind = key.split("self_attn.in_proj_")
            query, key_value = value.split([len(value) // 3, 2 * len(value) // 3])
            ours[f"{stem}attention.query.{kind}"] = query
            ours[f"{stem}attention.key_value.{kind}"] = key_value
        else:
            ours[key] = value.squeeze(0) if key.startswith("position") else value
    return ours


def images(encoder: XecEncoder, events: Events) -> Faces:
    """What the literal encoder reads: the scaled faces, channels first."""
    photons, time, valid, time_valid = events
    reference = encoder.scaling.reference(photons, time, time_valid)
    faces = []
    for name in encoder.faces.images:
        others = [encoder.faces.image(x, name) for x in (time, valid, time_valid)]
        scaled = encoder.scaling(encoder.faces.photons(photons, name), *others, reference)
        faces.append(scaled.permute(0, 3, 1, 2).contiguous())
    scaled = encoder.scaling(photons, time, valid, time_valid, reference)
    return Faces(*faces, *encoder.faces.nodes(scaled).unbind(1))


def compare(contenders: dict[str, nn.Module], inputs: dict[str, tuple]) -> float:
    """Largest difference of the tokens that should be equal."""
    with torch.no_grad():
        theirs = contenders[LITERAL](*inputs[LITERAL])
        ours = contenders[EQUAL](*inputs[EQUAL][0]).tokens
    difference = (theirs - ours).abs().max().item()
    assert difference < TOLERANCE, f"tokens differ by {difference}"
    return difference


def step(network: nn.Module, events: Events | Faces) -> None:
    """Run forward and backward."""
    network.zero_grad()
    tokens = network(events) if isinstance(events, Faces) else network(*events).tokens
    tokens.square().mean().backward()


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
