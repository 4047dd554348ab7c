"""Time attention over a batch of events of different length, full and in a wrapped window.

All contenders give the same answer for the same tokens:

- packed: our backends over one sequence that holds all events, one after the other.
- padded local: our `local` backend over events padded to the longest one.
- padding + mask: torch's scaled dot product attention over padded events with a boolean mask.
- loop over events: torch's scaled dot product attention over one event after the other, without a
  mask for full attention, with one for the window.

Masks are made before the clock starts. `flex` has no backward on the CPU.
"""

# B events, H heads, N tokens of the longest event, T tokens of all events, E head features

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import measure
import report
from hepattn.ops.attention import Full, Pattern, Window, attention, make_packed_plan, make_plan
from hepattn.ops.attention.backend import is_installed
from measure import DIRECTIONS, FORWARD, Seconds

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# The first that is installed is what the others are compared with.
BACKENDS = {"cpu": ("local", "flex"), "cuda": ("flash", "flex")}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    patterns: dict[str, Pattern] = {
        "full": Full(),
        f"window {options.window}": Window(options.window, wrap=True),
    }
    seconds = {
        f"{name}, {direction}": compare(pattern, direction, options)
        for name, pattern in patterns.items()
        for direction in DIRECTIONS
    }
    own = f"packed {own_backend(options)}"
    result = measure.describe(options) | {
        "own": own,
        "lengths": options.lengths,
        "window": options.window,
        "heads": options.heads,
        "head_dim": options.head_dim,
        "seconds": seconds,
        "largest_difference": {
            name: difference(pattern, options) for name, pattern in patterns.items()
        },
    }
    shortest, longest = min(options.lengths), max(options.lengths)
    title = (
        f"{len(options.lengths)} events of {shortest:,} to {longest:,} tokens, {options.heads} "
        f"heads of {options.head_dim}, {result['dtype']}, threads: {result['threads']}"
    )
    report.print_ratios(title, own, seconds)
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_difference"].items())
    report.make_console().print(f"largest differences of the others from {own}: {largest}")
    path = report.write(result, options, "packing")
    report.draw_bars(seconds, path, f"events of {shortest:,} to {longest:,} tokens")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=3)
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of each event")
    parser.add_argument("--window", type=int, default=512, help="window size in tokens")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument(
        "--backends", nargs="+", choices=("local", "flex", "flash"), help="ours, for packed events"
    )
    options = measure.parse(parser, arguments)
    options.backends = options.backends or BACKENDS[options.device]
    if options.device == "cpu" and options.backends[0] == "flex":
        parser.error("--backends flex: no backward on the CPU; name local first")
    if options.lengths is None:
        options.lengths = [500 * i for i in range(1, 5 if options.quick else 9)]
    return options


def own_backend(options: argparse.Namespace) -> str:
    return next(name for name in options.backends if is_installed(name))


def compare(pattern: Pattern, direction: str, options: argparse.Namespace) -> Seconds:
    *packed, grad_out = draw_tensors(options)
    padded = [pad(x, options.lengths) for x in packed]
    padded_grad = pad(grad_out, options.lengths)
    works = {}
    for name, (attend, is_packed) in make_contenders(pattern, direction, options).items():
        inputs, grad = (packed, grad_out) if is_packed else (padded, padded_grad)
        works[name] = measure.make_work(direction, attend, inputs, grad)
    return measure.interleave(works, options)


def make_contenders(
    pattern: Pattern, direction: str, options: argparse.Namespace
) -> dict[str, tuple[Attend, bool]]:
    """Make what attends, and say whether it takes the events packed."""
    contenders: dict[str, tuple[Attend, bool]] = {}
    plan = make_packed_plan(pattern, options.lengths, device=options.device)
    for name in filter(is_installed, options.backends):
        if options.device == "cuda" or name != "flex" or direction == FORWARD:
            contenders[f"packed {name}"] = (partial(attention, plan=plan, backend=name), True)
    length = torch.tensor(options.lengths, device=options.device)
    valid = torch.arange(max(options.lengths), device=options.device) < length[:, None]  # (B, N)
    plan = make_plan(pattern, valid)
    if options.device == "cpu":
        contenders["padded local"] = (partial(attention, plan=plan, backend="local"), False)
    masked = partial(F.scaled_dot_product_attention, attn_mask=plan.mask)
    contenders["padding + mask"] = (masked, False)
    contenders["loop over events"] = (loop_over_events(pattern, options), True)
    return contenders


def loop_over_events(pattern: Pattern, options: argparse.Namespace) -> Attend:
    ones = [torch.ones(1, n, dtype=torch.bool, device=options.device) for n in options.lengths]
    masks = [make_plan(pattern, valid).mask for valid in ones]

    def attend(*inputs: Tensor) -> Tensor:
        events = zip(*(x.split(options.lengths, dim=2) for x in inputs), masks, strict=True)
        parts = [F.scaled_dot_product_attention(*qkv, attn_mask=mask) for *qkv, mask in events]
        return torch.cat(parts, 2)  # (1, H, T, E)

    return attend


def difference(pattern: Pattern, options: argparse.Namespace) -> float:
    """Largest absolute difference of the other outputs from the first contender's."""
    *packed, _ = draw_tensors(options)
    padded = [pad(x, options.lengths) for x in packed]
    outs = []
    for attend, is_packed in make_contenders(pattern, FORWARD, options).values():
        out = measure.run_forward(attend, packed if is_packed else padded)
        outs.append(out if is_packed else pack(out, options.lengths))
    return max((out - outs[0]).abs().max().item() for out in outs[1:])


def draw_tensors(options: argparse.Namespace) -> list[Tensor]:
    """Packed queries, keys, values and the gradient of the output, (1, H, T, E) each."""
    shape = (1, options.heads, sum(options.lengths), options.head_dim)
    return [measure.random_tensor(*shape, options=options) for _ in range(4)]


def pad(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Turn packed events (1, H, T, E) into padded ones (B, H, N, E)."""
    events = [event[0].transpose(0, 1) for event in x.split(lengths, dim=2)]  # each (n, H, E)
    return torch.nn.utils.rnn.pad_sequence(events, batch_first=True).transpose(1, 2).contiguous()


def pack(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Turn padded events (B, H, N, E) into packed ones (1, H, T, E)."""
    return torch.cat([event[:, :n] for event, n in zip(x, lengths, strict=True)], 1)[None]


if __name__ == "__main__":
    main()
