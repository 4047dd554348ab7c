"""Time windowed attention against named peers, in one run and with interleaved repeats.

The window is wrapped and 512 tokens wide by default. On the CPU, in float32, `local` is compared
with its peers; on a GPU, in bfloat16, `flash` if it is installed, else `flex`. All contenders get
the same tensors, and masks are made before the clock starts:

- dense mask: torch's scaled dot product attention with a boolean mask of every pair. The same
  answer.
- no mask: torch's scaled dot product attention over everything. More work, another answer.
- local-attention: the package of that name with buckets of half a window, one bucket back and one
  forward. It has no wrap, and sees whole buckets, so that it is not exact at the band's edge.
- flex: our backend on torch's compiled FlexAttention. On the CPU it has no backward.
- flex by hand: FlexAttention compiled for each length, with a mask function and torch's
  create_block_mask, as one would write it without this package. The same answer.
"""

# B events, H heads, N tokens, E head features

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import measure
import report
from hepattn.ops.attention import Plan, Window, attention, make_plan
from hepattn.ops.attention.backend import is_installed
from measure import BACKWARD, DIRECTIONS, FORWARD, Seconds
from report import Goal

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
BACKENDS = ("local", "flex", "flash")
# Contenders on a device and the longest events, in tokens, at which they answer in reasonable time
# and memory, forward and with backward. The others are compared with the first that is installed.
NO_LIMIT = 2**62
LONGEST = {
    "cpu": {
        "local": (NO_LIMIT, NO_LIMIT),
        "dense mask": (16384, 8192),
        "no mask": (16384, 8192),
        "local-attention": (32768, 16384),
        "flex": (NO_LIMIT, 0),
        "flex by hand": (4096, 0),
    },
    "cuda": {
        "flash": (NO_LIMIT, NO_LIMIT),
        "flex": (NO_LIMIT, NO_LIMIT),
        "flex by hand": (NO_LIMIT, NO_LIMIT),
        "dense mask": (32768, 32768),
        "no mask": (NO_LIMIT, NO_LIMIT),
        "local-attention": (32768, 32768),
        "local": (NO_LIMIT, NO_LIMIT),
    },
}
# Contenders by default.
PEERS = {
    "cpu": ("dense mask", "no mask", "local-attention", "flex"),
    "cuda": ("flex", "flex by hand", "dense mask", "no mask"),
}
# The longest event whose exact answer is computed.
LONGEST_EXACT = 2048


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.only_memory:
        print(json.dumps(memory(options)))
        return
    own = own_backend(options)
    peak = measure.matmul_peak(options)
    seconds = {
        FORWARD: {n: compare(n, FORWARD, options) for n in options.tokens},
        BACKWARD: {n: compare(n, BACKWARD, options) for n in options.tokens_backward},
    }
    result = measure.describe(options) | {
        "own": own,
        "heads": options.heads,
        "head_dim": options.head_dim,
        "window": options.window,
        "matmul_peak_flops": peak,
        "seconds": seconds,
        "time_exponent": {
            direction: measure.exponent({n: row[own] for n, row in rows.items()})
            for direction, rows in seconds.items()
        },
        "memory_bytes": memory_of_fresh_process(options),
        "largest_error": errors(min(*options.tokens, LONGEST_EXACT), options),
    }
    goals = list_goals(result) if options.device == "cpu" else []
    result["goals"] = [goal.to_json() for goal in goals]
    show(result, goals)
    path = report.write(result, options, "attention")
    report.draw_lines(seconds, path, f"wrapped window {options.window}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", help="events to time, in tokens")
    parser.add_argument("--memory-tokens", type=int, help="event to measure memory of, in tokens")
    parser.add_argument("--window", type=int, default=512, help="window size in tokens")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--peers", nargs="*", choices=LONGEST["cuda"], help="whom to compare with")
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    options = measure.parse(parser, arguments)
    if options.peers is None:
        options.peers = PEERS[options.device]
    options.tokens_backward = options.tokens
    if options.tokens is None:
        if options.quick:
            options.tokens, options.tokens_backward = [1024, 2048, 4096], [1024, 2048]
        elif options.device == "cpu":
            options.tokens = options.tokens_backward = [2048, 4096, 8192, 16384, 60000]
        else:
            options.tokens = options.tokens_backward = [8192, 16384, 32768, 65536]
    if options.memory_tokens is None:
        options.memory_tokens = 8192 if options.quick else 60000
    return options


def own_backend(options: argparse.Namespace) -> str:
    return next(name for name in LONGEST[options.device] if is_installed(name))


def compare(num_tokens: int, direction: str, options: argparse.Namespace) -> Seconds:
    """Median seconds of every contender that can take events of this length."""
    *inputs, grad_out = draw_tensors(num_tokens, options)
    plan = plan_of(num_tokens, options)
    chosen = {own_backend(options), *options.peers}
    contenders = {}
    for name, longest in LONGEST[options.device].items():
        fits = num_tokens <= longest[DIRECTIONS.index(direction)]
        if name in chosen and fits and is_installed(name):
            attend = make_contender(name, plan, options)
            contenders[name] = measure.make_work(direction, attend, inputs, grad_out)
    return measure.interleave(contenders, options)


def make_contender(name: str, plan: Plan, options: argparse.Namespace) -> Attend:
    if name in BACKENDS:
        return partial(attention, plan=plan, backend=name)
    if name == "dense mask":
        return partial(F.scaled_dot_product_attention, attn_mask=plan.mask)
    if name == "no mask":
        return F.scaled_dot_product_attention
    if name == "flex by hand":
        return flex_by_hand(plan.key_valid.shape[1], options)
    from local_attention import LocalAttention

    return LocalAttention(options.window // 2, autopad=True, use_rotary_pos_emb=False)


def flex_by_hand(num_tokens: int, options: argparse.Namespace) -> Attend:
    half = options.window // 2

    def is_near(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = (i - j).abs()
        return torch.minimum(distance, num_tokens - distance) <= half

    # Compiled, it does not store every pair; that pays on a GPU, where events are longer.
    make = create_block_mask if options.device == "cpu" else torch.compile(create_block_mask)
    compiled = torch.compile(flex_attention, dynamic=False)
    # Every length compiles kernels of its own. Beyond torch's limit it would store every pair.
    many = partial(torch._dynamo.config.patch, recompile_limit=64)
    with many():
        block_mask = make(is_near, None, None, num_tokens, num_tokens, device=options.device)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with many():
            return compiled(q, k, v, block_mask=block_mask)

    return attend


def draw_tensors(num_tokens: int, options: argparse.Namespace) -> list[Tensor]:
    shape = (1, options.heads, num_tokens, options.head_dim)
    return [measure.random_tensor(*shape, options=options) for _ in range(4)]


def plan_of(num_tokens: int, options: argparse.Namespace) -> Plan:
    valid = torch.ones(1, num_tokens, dtype=torch.bool, device=options.device)
    return make_plan(Window(options.window, wrap=True), valid)


def memory(options: argparse.Namespace) -> dict[str, int]:
    """Peak memory above the inputs, in bytes."""

    def attend(num_tokens: int, direction: str) -> int:
        *inputs, grad_out = draw_tensors(num_tokens, options)
        plan = plan_of(num_tokens, options)
        contender = make_contender(own_backend(options), plan, options)
        work = measure.make_work(direction, contender, inputs, grad_out)
        return measure.peak_memory(work, options)

    attend(1024, BACKWARD)  # what is loaded and kept at first use
    peaks = {direction: attend(options.memory_tokens, direction) for direction in DIRECTIONS}
    return {"tokens": options.memory_tokens} | peaks


def memory_of_fresh_process(options: argparse.Namespace) -> dict[str, int]:
    names = ("memory_tokens", "window", "heads", "head_dim", "device")
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    if options.threads:
        flags.append(f"--threads={options.threads}")
    return measure.in_fresh_process(__file__, ["--only-memory", *flags])


def errors(num_tokens: int, options: argparse.Namespace) -> dict[str, float]:
    """Largest absolute differences from a dense mask in float64."""
    *inputs, grad_out = draw_tensors(num_tokens, options)
    plan = plan_of(num_tokens, options)
    answers = []
    for dtype, backend in ((options.dtype, own_backend(options)), (torch.float64, "sdpa")):
        attend = partial(attention, plan=plan, backend=backend)
        exact = [x.to(dtype) for x in (*inputs, grad_out)]
        answers.append(measure.run_backward(attend, exact[:3], exact[3]))
    names = ("out", "grad q", "grad k", "grad v")
    return {
        name: (found.double() - expected).abs().max().item()
        for name, found, expected in zip(names, *answers, strict=True)
    }


def useful_flops(num_tokens: int, direction: str, result: dict) -> float:
    """Operations on visible pairs: two matrix products forward, five more backward."""
    pairs = num_tokens * min(result["window"] + 1, num_tokens) * result["heads"]
    return 2 * pairs * result["head_dim"] * (2 if direction == FORWARD else 7)


def list_goals(result: dict) -> list[Goal]:
    """Compare with what the project set out to reach on a CPU, at the sizes by default."""

    def ratio(direction: str, peer: str, *lengths: int) -> float | None:
        rows = (result["seconds"][direction].get(n, {}) for n in lengths)
        return min((row[peer] / row[result["own"]] for row in rows if peer in row), default=None)

    def time_exponent(direction: str) -> float | None:
        lengths = result["seconds"][direction]
        is_wide = min(lengths) <= 2048 and max(lengths) >= 60000
        return result["time_exponent"][direction] if is_wide else None

    def gigabytes(direction: str) -> float | None:
        used = result["memory_bytes"]
        return used[direction] / 1e9 if used["tokens"] == 60000 else None

    error, *grad_errors = result["largest_error"].values()
    package, long = "local-attention", (8192, 16384)
    return [
        Goal("× dense mask, 16k forward", ratio(FORWARD, "dense mask", 16384), ">=", 30),
        Goal("× dense mask, 8k with backward", ratio(BACKWARD, "dense mask", 8192), ">=", 12),
        Goal("× flex, 8k and 16k forward", ratio(FORWARD, "flex", *long), ">=", 1.8),
        Goal(f"× {package}, 8k and 16k forward", ratio(FORWARD, package, *long), ">=", 5),
        Goal(f"× {package}, 8k and 16k with backward", ratio(BACKWARD, package, *long), ">=", 2.5),
        Goal("exponent of time, 2k to 60k forward", time_exponent(FORWARD), "<=", 1.05),
        Goal("exponent of time, 2k to 60k with backward", time_exponent(BACKWARD), "<=", 1.05),
        Goal("GB above the inputs, 60k forward", gigabytes(FORWARD), "<=", 0.3),
        Goal("GB above the inputs, 60k with backward", gigabytes(BACKWARD), "<=", 1.7),
        Goal("largest error forward", error, "<=", 1e-6),
        Goal("largest error of gradients", max(grad_errors), "<=", 3e-6),
    ]


def show(result: dict, goals: Sequence[Goal]) -> None:
    rows, shares = {}, {}
    for direction, lengths in result["seconds"].items():
        for num_tokens, seconds in lengths.items():
            label = f"{num_tokens:,} {direction}"
            rows[label] = seconds
            rate = useful_flops(num_tokens, direction, result) / seconds[result["own"]]
            shares[label] = f"{rate / result['matmul_peak_flops']:.0%}"
    title = (
        f"{result['own']} backend, wrapped window {result['window']}, {result['heads']} heads of "
        f"{result['head_dim']}, {result['dtype']}, threads: {result['threads']}, "
        f"clock: {result['clock']}"
    )
    report.print_ratios(title, result["own"], rows, {"of matmul peak": shares})
    console = report.make_console()
    if any("local-attention" in seconds for seconds in rows.values()):
        console.print("local-attention: no wrap, not exact at the band's edge")
    console.print(f"matmul peak: {result['matmul_peak_flops'] / 1e9:.0f} GFLOP/s")
    used = result["memory_bytes"]
    for direction, power in result["time_exponent"].items():
        growth = "" if power is None else f"time grows as N^{power:.2f}; "
        size = f"{used[direction] / 1e9:.2f} GB above the inputs at {used['tokens']:,} tokens"
        console.print(f"{direction}: {growth}{size}")
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_error"].items())
    console.print(f"largest differences from float64: {largest}")
    if goals:
        report.print_goals(goals)


if __name__ == "__main__":
    main()
