"""Time attention with a pairwise bias that needs gradients, as ParT's jets have it.

Our `sdpa` backend against torch's scaled dot product attention with the same bias as a float mask,
which on the CPU falls back to matrices of all scores as soon as the mask needs gradients. The same
answer; where weights are dropped, another draw.
"""

# B events, H heads, N tokens, E head features

import argparse
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import measure
import report
from hepattn.ops.attention import Full, attention, make_plan
from measure import DIRECTIONS

OWN, PEER = "hepattn", "torch"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    *inputs, grad_out = draw_tensors(options)
    seconds = {}
    for dropout in options.dropout:
        contenders = make_contenders(dropout, options)
        for direction in DIRECTIONS:
            works = {
                name: measure.make_work(direction, attend, inputs, grad_out)
                for name, attend in contenders.items()
            }
            label = f"{direction}, dropout {dropout:g}"
            seconds[label] = measure.interleave(works, options)
    sizes = {name: getattr(options, name) for name in ("events", "tokens", "heads", "head_dim")}
    result = measure.describe(options) | sizes
    result["seconds"] = seconds
    result["largest_difference"] = differences(inputs, grad_out, options)
    title = (
        f"pairwise bias: {options.events} events of {options.tokens}, {options.heads} heads of "
        f"{options.head_dim}, {result['dtype']}, threads: {result['threads']}"
    )
    report.print_ratios(title, OWN, seconds)
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_difference"].items())
    report.make_console().print(f"largest differences without dropout: {largest}")
    report.draw_bars(seconds, report.write(result, options, "bias"), title.split(",")[0])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=9)
    parser.add_argument("--events", type=int, help="events of a batch")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an event")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=16)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    options = measure.parse(parser, arguments)
    if options.events is None:
        options.events = 16 if options.quick else 64
    return options


def draw_tensors(options: argparse.Namespace) -> list[Tensor]:
    """Queries, keys, values, the bias and the gradient of the output."""
    shape = (options.events, options.heads, options.tokens, options.head_dim)
    q, k, v, grad_out = (measure.random_tensor(*shape, options=options) for _ in range(4))
    bias = measure.random_tensor(*shape[:3], options.tokens, options=options)
    return [q, k, v, bias, grad_out]


def make_contenders(
    dropout: float, options: argparse.Namespace
) -> dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]]:
    valid = torch.ones(options.events, options.tokens, dtype=torch.bool, device=options.device)
    plan = make_plan(Full(), valid)

    def own(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attention(q, k, v, plan=plan, bias=bias, dropout=dropout, backend="sdpa")

    def peer(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)

    return {OWN: own, PEER: peer}


def differences(
    inputs: Sequence[Tensor], grad_out: Tensor, options: argparse.Namespace
) -> dict[str, float]:
    """Largest absolute differences between both answers."""
    contenders = make_contenders(0.0, options).values()
    answers = [measure.run_backward(attend, inputs, grad_out) for attend in contenders]
    names = ("out", "grad q", "grad k", "grad v", "grad bias")
    return {
        name: (mine - theirs).abs().max().item()
        for name, mine, theirs in zip(names, *answers, strict=True)
    }


if __name__ == "__main__":
    main()
