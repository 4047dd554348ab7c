"""Time a whole encoder against named peers, in one run and with interleaved repeats.

One event of sorted hits in a wrapped window, with the sizes of the tracking networks by default.
Every contender makes what it needs to know about the batch, such as masks, in every forward:

- dense mask: the same encoder with the same weights on our `sdpa` backend, which hands torch a mask
  of every pair. The same answer.
- dense mask for free: the same, less the time that it takes to make the mask.
- x-transformers: pre-norm layers of that package with the same sizes. It has no windows: full
  attention without a mask, more work and another answer.
- compiled: our encoder through torch.compile, with --compile. The same answer.
"""

# B events, N hits, D features

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import measure
import report
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.encoder import Encoder
from hepattn.nn.x_transformer import XTransformerEncoder
from hepattn.ops.attention import make_plan
from measure import DIRECTIONS, Seconds
from report import Goal

OWN, DENSE, MASK, FREE = "hepattn", "dense mask", "mask", "dense mask for free"
# How far equal answers may be apart after several layers, where features are of order one.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    encoders = make_encoders(options)
    x, grad_out = (
        measure.random_tensor(1, options.tokens, options.dim, options=options) for _ in range(2)
    )
    apart = differences(encoders, x, options)
    seconds = {d: compare(encoders, x, grad_out, d, options) for d in DIRECTIONS}
    names = ("backend", "tokens", "depth", "dim", "heads", "window")
    result = measure.describe(options) | {name: getattr(options, name) for name in names}
    result |= {
        "seconds": seconds,
        "hits_per_second": {d: options.tokens / row[OWN] for d, row in seconds.items()},
        "largest_difference": apart,
    }
    goals = list_goals(result) if options.device == "cpu" else []
    result["goals"] = [goal.to_json() for goal in goals]
    show(result, goals)
    path = report.write(result, options, "encoder")
    report.draw_bars(seconds, path, f"encoder of {options.depth} layers, {options.tokens:,} hits")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=3)
    parser.add_argument("--tokens", type=int, help="hits of the event")
    parser.add_argument("--depth", type=int, help="layers of the encoder")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--window", type=int, default=1024, help="window size in hits")
    parser.add_argument(
        "--backend", choices=("auto", "local", "flex", "flash"), default="auto", help="our own"
    )
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    options = measure.parse(parser, arguments)
    options.tokens = options.tokens or (2048 if options.quick else 8192)
    options.depth = options.depth or (2 if options.quick else 8)
    return options


def make_encoders(options: argparse.Namespace) -> dict[str, nn.Module]:
    """Make our encoder and its peers."""

    def make(backend: str) -> Encoder:
        attention = AttentionOptions(num_heads=options.heads, backend=backend)
        return Encoder(options.dim, options.depth, attention, window=options.window, wrap=True)

    encoders: dict[str, nn.Module] = {OWN: make(options.backend), DENSE: make("sdpa")}
    encoders[DENSE].load_state_dict(encoders[OWN].state_dict())
    # Without our wrapper, which masks padding: there is none, and attention is faster unmasked.
    encoders["x-transformers"] = XTransformerEncoder(
        options.dim, options.depth, options.heads, norm="LayerNorm"
    ).encoder
    for encoder in encoders.values():
        encoder.to(options.device, options.dtype)
    if options.compile:
        encoders["compiled"] = torch.compile(encoders[OWN])
    return encoders


def make_function(name: str, encoder: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Make a function of the hits alone."""
    if name == "x-transformers":
        return encoder
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)  # (B, N)
    return partial(encoder, valid=valid)


def differences(
    encoders: dict[str, nn.Module], x: Tensor, options: argparse.Namespace
) -> dict[str, float]:
    """Largest absolute difference from our encoder of those that must give the same answer.

    Raises:
        RuntimeError: If it is too large.
    """
    own = measure.run_forward(make_function(OWN, encoders[OWN], x), [x])
    apart = {}
    for name in (DENSE, "compiled") if "compiled" in encoders else (DENSE,):
        out = measure.run_forward(make_function(name, encoders[name], x), [x])
        apart[name] = (out - own).abs().max().item()
        if not apart[name] <= TOLERANCE[options.dtype]:
            raise RuntimeError(f"{name} differs by {apart[name]:.1e} from {OWN}: a wrong answer")
    return apart


def compare(
    encoders: dict[str, nn.Module],
    x: Tensor,
    grad_out: Tensor,
    direction: str,
    options: argparse.Namespace,
) -> Seconds:
    works: dict[str, measure.Work] = {}
    for name, encoder in encoders.items():
        function = make_function(name, encoder, x)
        parameters = list(encoder.parameters())
        works[name] = measure.make_work(direction, function, [x], grad_out, parameters)
    works[MASK] = partial(make_mask, encoders[OWN], x)
    seconds = measure.interleave(works, options)
    mask = seconds.pop(MASK)
    return seconds | {FREE: max(0.0, seconds[DENSE] - mask)}


def make_mask(encoder: Encoder, x: Tensor) -> Tensor:
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return make_plan(encoder.pattern, valid).mask


def list_goals(result: dict) -> list[Goal]:
    """Compare with what the project set out to reach on a CPU, at the sizes by default."""
    is_full = (result["tokens"], result["depth"]) == (8192, 8)
    goals = []
    for direction in DIRECTIONS:
        seconds = result["seconds"][direction]
        ratio = seconds[FREE] / seconds[OWN] if is_full else None
        goals.append(Goal(f"× {FREE}, 8 layers, 8,192 hits, {direction}", ratio, ">=", 5))
    return goals


def show(result: dict, goals: Sequence[Goal]) -> None:
    title = (
        f"encoder of {result['depth']} layers, dim {result['dim']}, {result['heads']} heads, "
        f"wrapped window {result['window']}, {result['tokens']:,} hits, {result['dtype']}, "
        f"threads: {result['threads']}, clock: {result['clock']}, backend: {result['backend']}"
    )
    rates = {direction: f"{rate:,.0f}" for direction, rate in result["hits_per_second"].items()}
    report.print_ratios(title, OWN, result["seconds"], {"hits per second": rates})
    console = report.make_console()
    console.print("x-transformers: no windows, attends to everything")
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_difference"].items())
    console.print(f"largest difference from {OWN}: {largest}")
    if goals:
        report.print_goals(goals)


if __name__ == "__main__":
    main()
