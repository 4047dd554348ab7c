"""Time a training step of event networks, without the optimiser's, against torch's encoder.

A batch of 512 events of up to 20 objects of four kinds, once with random numbers of them and once
full, 64 features. The networks get raw columns and give a logit an event:

- Particle Transformer: three blocks of objects with the pairwise bias, two of the class token.
- Set Transformer: two blocks, one seed.
- Deep Sets: three layers for each object, three for the event.
- nn.TransformerEncoder: three layers of torch's with 8 heads, 256 hidden units and a mask of the
  padding. It gets objects that are embedded already and gives them back, which spares it something.

By default our transformers have the width of torch's: 8 heads of 8 features. With ``--head-dim 16``
attention is twice as wide, as published for events. Dense nets are gated by a GELU here, which is
half as much work again as torch's with its ReLU; with ``--activation gelu`` those of the Particle
Transformer are as large as torch's.
"""

# B events, N objects, F columns, D features

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

import measure
import report
from hepattn.models import event_particle_transformer
from hepattn.models.deep_sets import DeepSets
from hepattn.models.event_particle_transformer import EventParticleTransformer
from hepattn.models.set_transformer import SetTransformer
from hepattn.nn.event_schema import EventSchema
from hepattn.nn.normalise import Feature
from hepattn.nn.set_block import SetBlockOptions
from hepattn.physics.four_vector import from_pt_eta_phi_energy
from measure import Seconds
from report import Goal

PART, SET, SUMS, PEER = "Particle Transformer", "Set Transformer", "Deep Sets", "torch's encoder"
RANDOM, FULL = "random numbers", "full events"
MAX_OBJECTS = {"jets": 10, "electrons": 4, "muons": 4, "taus": 2}
COLUMNS = ("log_pt", "eta", "sin_phi", "cos_phi", "score")
GOALS = {PART: 1.3, SET: 1.2, SUMS: 0.3}
NUM_EVENTS, NUM_HEADS, DIM, HIDDEN, DEPTH = 512, 8, 64, 256, 3

Events = tuple[Tensor, ...]  # columns of the events, four-vectors, which are real, columns of each


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    batches = {RANDOM: draw_events(options, full=False), FULL: draw_events(options, full=True)}
    contenders = make_contenders(options)
    seconds: dict[str, Seconds] = {}
    for kind, events in batches.items():
        works = {name: partial(step, network, events) for name, network in contenders.items()}
        seconds[kind] = measure.interleave(works, options)
    numbers = {kind: batch[2].sum(1).float().mean().item() for kind, batch in batches.items()}
    result = measure.describe(options) | {
        "events": options.events,
        "objects": sum(MAX_OBJECTS.values()),
        "mean_number_of_objects": numbers,
        "head_dim": options.head_dim,
        "activation": options.activation,
        "parameters": {name: count(network) for name, network in contenders.items()},
        "seconds": seconds,
    }
    is_large = options.events >= NUM_EVENTS  # small batches are all overhead
    goals = [
        Goal(f"{name}, {kind}", row[name] / row[PEER] if is_large else None, "<=", limit)
        for kind, row in seconds.items()
        for name, limit in GOALS.items()
    ]
    result["goals"] = [goal.to_json() for goal in goals]
    title = (
        f"training step of {options.events} events, {numbers[RANDOM]:.1f} objects on average or "
        f"{numbers[FULL]:.0f}, heads of {options.head_dim}, {result['dtype']}, threads: "
        f"{result['threads']}, clock: {result['clock']}"
    )
    report.print_ratios(title, PEER, seconds)
    report.print_goals(goals)
    report.draw_bars(seconds, report.write(result, options, "events"), "event networks")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=9)
    parser.add_argument("--events", type=int, help="events of a batch")
    parser.add_argument("--head-dim", type=int, default=8, help="features of a head of ours")
    activation_help = "of the Particle Transformer's dense nets"
    parser.add_argument(
        "--activation", choices=("geglu", "gelu"), default="geglu", help=activation_help
    )
    options = measure.parse(parser, arguments)
    options.events = options.events or (64 if options.quick else NUM_EVENTS)
    return options


def draw_events(options: argparse.Namespace, *, full: bool) -> Events:
    """Draw objects at random, of each kind any number up to its largest."""
    B, N = options.events, sum(MAX_OBJECTS.values())
    real = []
    for size in MAX_OBJECTS.values():
        number = torch.full((B, 1), size) if full else torch.randint(size + 1, (B, 1))
        real.append(torch.arange(size) < number)
    valid = torch.cat(real, 1)  # (B, N)
    pt = torch.rand(B, N).mul(4).add(3).exp()
    eta, phi, score = 2 * torch.randn(B, N), 6.28 * torch.rand(B, N), torch.randn(B, N)
    vectors = from_pt_eta_phi_energy(pt, eta, phi, 1.01 * pt * eta.cosh())
    columns = torch.stack([pt.log(), eta, phi.sin(), phi.cos(), score], -1)  # (B, N, F)
    padding = ~valid.unsqueeze(-1)
    vectors, columns = vectors.masked_fill(padding, 0.0), columns.masked_fill(padding, 0.0)
    parts = columns.split(list(MAX_OBJECTS.values()), 1)
    inputs = (torch.zeros(B, 0), vectors, valid, *(part.contiguous() for part in parts))
    return tuple(x.to(options.device) for x in inputs)


class TorchEncoder(nn.Module):
    """Torch's layers, on objects that are embedded already."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            DIM, NUM_HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.tokens: dict[torch.Size, Tensor] = {}

    def forward(self, events: Tensor, vectors: Tensor, valid: Tensor, *objects: Tensor) -> Tensor:
        """Encode; the objects (B, N, D)."""
        if valid.shape not in self.tokens:
            self.tokens[valid.shape] = torch.randn(*valid.shape, DIM, device=valid.device)
        return self.encoder(self.tokens[valid.shape], src_key_padding_mask=~valid)


def make_contenders(options: argparse.Namespace) -> dict[str, nn.Module]:
    features = tuple(Feature(name) for name in COLUMNS)
    schema = EventSchema(
        objects=dict.fromkeys(MAX_OBJECTS, features),
        max_objects=MAX_OBJECTS,
        with_vectors=tuple(MAX_OBJECTS),
    )
    block, set_block = event_particle_transformer.BLOCK, SetBlockOptions()
    attention = replace(block.attention, num_heads=NUM_HEADS, head_dim=options.head_dim)
    block = replace(block, attention=attention, activation=options.activation)
    networks = {
        PART: EventParticleTransformer(schema, 1, DIM, block=block),
        SET: SetTransformer(schema, 1, DIM, block=replace(set_block, attention=attention)),
        SUMS: DeepSets(schema, 1, (DIM,) * DEPTH, (DIM,) * (DEPTH - 1)),
        PEER: TorchEncoder(),
    }
    return {name: network.to(options.device).train() for name, network in networks.items()}


def step(network: nn.Module, events: Events) -> None:
    """Run forward and backward."""
    network.zero_grad()
    network(*events).square().mean().backward()


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
