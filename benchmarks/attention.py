"""Time exact banded attention against named peers, in one run and with interleaved repeats.

The window is wrapped and 512 tokens wide by default. All peers get the same tensors:

- dense mask: torch's scaled dot product attention with a boolean mask of every pair, made before
  the clock starts. The same answer.
- no mask: torch's scaled dot product attention over everything. More work, another answer.
- local-attention: the package of that name with buckets of half a window, one bucket back and one
  forward. It has no wrap, and sees whole buckets, so that it is not exact at the band's edge.
"""

# B events, H heads, N tokens, E head features

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from local_attention import LocalAttention
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hepattn.ops.attention import Plan, Window, attention, make_plan

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
PEERS = ("dense mask", "no mask", "local-attention")
DIRECTIONS = ("forward", "forward + backward")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Longest events, in tokens, at which a peer answers in reasonable time on a CPU.
LONGEST = {
    "forward": {"dense mask": 16384, "no mask": 16384, "local-attention": 32768},
    "forward + backward": {"dense mask": 8192, "no mask": 8192, "local-attention": 16384},
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only_memory:
        print(json.dumps(memory(options)))
        return
    peak = matmul_peak(options.clock)
    times = {
        direction: {num_tokens: compare(num_tokens, direction, options) for num_tokens in lengths}
        for direction, lengths in zip(
            DIRECTIONS, (options.tokens, options.tokens_backward or options.tokens), strict=True
        )
    }
    result = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "heads": options.heads,
        "head_dim": options.head_dim,
        "window": options.window,
        "repeats": options.repeats,
        "clock": options.clock,
        "matmul_peak_flops": peak,
        "seconds": times,
        "time_exponent": {direction: exponent(times[direction]) for direction in DIRECTIONS},
        "memory_bytes": memory_of_fresh_process(options),
        "largest_error": errors(min(options.tokens), options),
    }
    report(result)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "attention.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, options.out / "attention.png")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, less than a minute")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results"
    )
    parser.add_argument("--tokens", type=int, nargs="+", help="events to time, in tokens")
    parser.add_argument("--memory-tokens", type=int, help="event to measure memory of, in tokens")
    parser.add_argument("--window", type=int, default=512, help="window size in tokens")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's default if not given")
    clock_help = "cpu: CPU seconds, for --threads 1 on a machine that others use"
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help=clock_help)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.tokens_backward = None
    if options.tokens is None:
        options.tokens = [1024, 2048, 4096] if options.quick else [2048, 4096, 8192, 16384, 60000]
        options.tokens_backward = [1024, 2048] if options.quick else None
    if options.memory_tokens is None:
        options.memory_tokens = 8192 if options.quick else 60000
    if options.quick:
        options.repeats = min(options.repeats, 3)
    return options


def compare(num_tokens: int, direction: str, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of every contender that can take events of this length."""
    q, k, v, grad_out = draw_tensors(num_tokens, options)
    grad_out = None if direction == "forward" else grad_out
    plan = plan_of(num_tokens, options)
    contenders: dict[str, Attend] = {"local": partial(attention, plan=plan, backend="local")}
    mask = plan.mask if num_tokens <= LONGEST[direction]["dense mask"] else None
    package = LocalAttention(options.window // 2, autopad=True, use_rotary_pos_emb=False)
    peers: dict[str, Attend] = {
        "dense mask": partial(F.scaled_dot_product_attention, attn_mask=mask),
        "no mask": F.scaled_dot_product_attention,
        "local-attention": package,
    }
    contenders |= {name: peers[name] for name in PEERS if num_tokens <= LONGEST[direction][name]}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 1):
        for name, attend in contenders.items():
            took = time_once(attend, q, k, v, grad_out, options.clock)
            if repeat:  # The first round warms up.
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}


def time_once(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor | None, clock: str
) -> float:
    now = CLOCKS[clock]
    if grad_out is None:
        with torch.no_grad():
            start = now()
            attend(q, k, v)
            return now() - start
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    start = now()
    torch.autograd.grad(attend(*leaves), leaves, grad_out)
    return now() - start


def draw_tensors(num_tokens: int, options: argparse.Namespace) -> list[Tensor]:
    return [torch.randn(1, options.heads, num_tokens, options.head_dim) for _ in range(4)]


def plan_of(num_tokens: int, options: argparse.Namespace) -> Plan:
    valid = torch.ones(1, num_tokens, dtype=torch.bool)
    return make_plan(Window(options.window, wrap=True), valid)


def matmul_peak(clock: str, size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    x, now = torch.randn(size, size), CLOCKS[clock]
    seconds = []
    for _ in range(5):
        start = now()
        x @ x
        seconds.append(now() - start)
    return 2 * size**3 / min(seconds)


def useful_flops(num_tokens: int, direction: str, result: dict) -> float:
    """Operations on visible pairs: two matrix products forward, five more backward."""
    pairs = num_tokens * min(result["window"] + 1, num_tokens) * result["heads"]
    return 2 * pairs * result["head_dim"] * (2 if direction == "forward" else 7)


def exponent(times: dict[int, dict[str, float]]) -> float:
    """Exponent of time against tokens between the shortest and the longest event."""
    short, long = min(times), max(times)
    if short == long:
        return math.nan
    return math.log(times[long]["local"] / times[short]["local"]) / math.log(long / short)


def memory(options: argparse.Namespace) -> dict[str, int]:
    """Peak memory above the inputs, in bytes; means something in a fresh process only."""

    def attend(num_tokens: int, backward: bool) -> int:
        q, k, v, grad_out = draw_tensors(num_tokens, options)
        plan = plan_of(num_tokens, options)
        # Linux forgets the peak so far, of imports and earlier steps.
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_memory()
        grad_out = grad_out if backward else None
        attend_locally = partial(attention, plan=plan, backend="local")
        time_once(attend_locally, q, k, v, grad_out, options.clock)
        return max(0, peak_memory() - before)  # small steps live on freed memory

    attend(1024, backward=True)
    return {
        "tokens": options.memory_tokens,
        "forward": attend(options.memory_tokens, backward=False),
        "forward + backward": attend(options.memory_tokens, backward=True),
    }


def peak_memory() -> int:
    """Peak of this process's resident memory in bytes.

    Not getrusage's: that one starts at the memory of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def memory_of_fresh_process(options: argparse.Namespace) -> dict[str, int]:
    sizes = ("memory_tokens", "window", "heads", "head_dim")
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in sizes]
    command = [sys.executable, __file__, "--only-memory", *flags]
    if options.threads:
        command.append(f"--threads={options.threads}")
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output)


def errors(num_tokens: int, options: argparse.Namespace) -> dict[str, float]:
    """Largest absolute differences of float32 `local` from a dense mask in float64."""
    *inputs, grad_out = draw_tensors(num_tokens, options)
    plan = plan_of(num_tokens, options)
    answers = []
    for dtype, backend in ((torch.float32, "local"), (torch.float64, "sdpa")):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        out = attention(*leaves, plan=plan, backend=backend)
        answers.append([out, *torch.autograd.grad(out, leaves, grad_out.to(dtype))])
    names = ("out", "grad q", "grad k", "grad v")
    return {
        name: (found.double() - expected).abs().max().item()
        for name, found, expected in zip(names, *answers, strict=True)
    }


def report(result: dict) -> None:
    table = Table(
        title=f"local backend, wrapped window {result['window']}, {result['heads']} heads of "
        f"{result['head_dim']}, float32, threads: {result['threads']}, {result['clock']} time"
    )
    for column in ("tokens", "direction", "local ms", "of matmul peak"):
        table.add_column(column, justify="right")
    for name in PEERS:
        table.add_column(f"× {name}", justify="right")
    for direction in DIRECTIONS:
        for num_tokens, seconds in result["seconds"][direction].items():
            own = seconds["local"]
            rate = useful_flops(num_tokens, direction, result) / own
            ratios = (f"{seconds[name] / own:.1f}" if name in seconds else "" for name in PEERS)
            table.add_row(
                str(num_tokens),
                direction,
                f"{1e3 * own:.1f}",
                f"{rate / result['matmul_peak_flops']:.0%}",
                *ratios,
            )
    console = Console(width=120)
    console.print(table)
    console.print("× peer: how many times longer the peer takes, medians of interleaved repeats")
    console.print("local-attention: no wrap, not exact at the band's edge")
    console.print(f"matmul peak: {result['matmul_peak_flops'] / 1e9:.0f} GFLOP/s")
    used = result["memory_bytes"]
    for direction in DIRECTIONS:
        console.print(
            f"{direction}: time grows as N^{result['time_exponent'][direction]:.2f}; "
            f"{used[direction] / 1e9:.2f} GB above the inputs at {used['tokens']} tokens"
        )
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_error"].items())
    console.print(f"largest differences from float64: {largest}")


def draw(result: dict, path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axes, direction in zip(panels, DIRECTIONS, strict=True):
        for name in ("local", *PEERS):
            points = [
                (n, seconds[name])
                for n, seconds in result["seconds"][direction].items()
                if name in seconds
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), "o-", label=name)
        axes.set(title=direction, xlabel="tokens")
        axes.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("time in s")
    panels[0].legend(title=f"wrapped window {result['window']}")
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
