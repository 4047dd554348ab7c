"""How the benchmarks measure: options, clocks, interleaved repeats, memory.

All contenders of a comparison run in one process, in turn and repeatedly, so that they see the
same machine, the same number of threads and the same allocator (`THP_MEM_ALLOC_ENABLE=1` in the
environment speeds up large tensors on the CPU, for all of them alike).
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

Work = Callable[[], object]
Seconds = dict[str, float]  # by contender

FORWARD, BACKWARD = DIRECTIONS = ("forward", "forward + backward")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Formats that attention is trained in; goals and errors are stated for the CPU.
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}


def make_parser(description: str, repeats: int = 5) -> argparse.ArgumentParser:
    """Make a parser with the options that all benchmarks take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, less than a minute")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results"
    )
    parser.add_argument("--repeats", type=int, default=repeats, help="medians are over so many")
    parser.add_argument("--device", choices=DTYPES, default="cpu", help="cuda: in bfloat16")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's default if not given")
    clock_help = "cpu: CPU seconds, for --threads 1 on a machine that others use; not on a GPU"
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help=clock_help)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options and prepare torch for them."""
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats} must be at least 1")
    options.dtype = DTYPES[options.device]
    if options.quick:
        options.repeats = min(options.repeats, 3)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return options


def describe(options: argparse.Namespace) -> dict[str, object]:
    """Say what was run on what."""
    is_cpu = options.device == "cpu"
    return {
        "torch": torch.__version__,
        "processor": processor() if is_cpu else torch.cuda.get_device_name(),
        "device": options.device,
        "dtype": str(options.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
        "repeats": options.repeats,
        "clock": options.clock if is_cpu else "events",
    }


def processor() -> str:
    """Name the CPU."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def random_tensor(*shape: int, options: argparse.Namespace) -> Tensor:
    return torch.randn(shape).to(options.device, options.dtype)


def run_forward(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return function(*inputs)


def run_backward(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_out: Tensor,
    parameters: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Run forward and backward; the output and the gradients of all inputs and parameters."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves)
    return out, *torch.autograd.grad(out, [*leaves, *parameters], grad_out)


def make_work(
    direction: str,
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_out: Tensor,
    parameters: Sequence[Tensor] = (),
) -> Work:
    """Make what is timed in a direction."""
    if direction == FORWARD:
        return partial(run_forward, function, inputs)
    return partial(run_backward, function, inputs, grad_out, parameters)


def interleave(contenders: Mapping[str, Work], options: argparse.Namespace) -> Seconds:
    """Median seconds of each contender over rounds in which all of them run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 1):
        for name, work in contenders.items():
            took = time_once(work, options)
            if repeat:  # The first round warms up and compiles.
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}


def time_once(work: Work, options: argparse.Namespace) -> float:
    if options.device == "cpu":
        now = CLOCKS[options.clock]
        start = now()
        work()
        return now() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3  # from ms


def matmul_peak(options: argparse.Namespace) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 2048 if options.device == "cpu" else 8192
    x = random_tensor(size, size, options=options)
    return 2 * size**3 / min(time_once(lambda: x @ x, options) for _ in range(5))


def peak_memory(work: Work, options: argparse.Namespace) -> int:
    """Most memory in use during some work above what was in use before, in bytes.

    On the CPU it means something only in a fresh process: later work lives on freed memory.
    """
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    # Linux forgets the peak so far, of imports and earlier work.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident()
    work()
    return max(0, _peak_resident() - before)


def _peak_resident() -> int:
    # Not getrusage's: that one starts at the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def in_fresh_process(script: str, flags: Sequence[str]) -> dict:
    """Run a script by itself and read the JSON that it prints."""
    command = [sys.executable, script, *flags]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def exponent(seconds: Mapping[int, float]) -> float | None:
    """Exponent of time against size between the smallest and the largest size."""
    small, large = min(seconds), max(seconds)
    if small == large:
        return None
    return math.log(seconds[large] / seconds[small]) / math.log(large / small)
