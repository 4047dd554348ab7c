"""Time the hit filter against hits, and the matching of queries to tracks against tracks.

Hit filter: the network of a shipped config on one event of hits at random places, in float32 on
the CPU and under autocast on a GPU. Forward, and a training step: forward, loss, backward and the
optimiser's step. A contender is a backend of attention; all have the same weights and give the
same answer. The network of `hit_filter` attends among the doublets of each hit and, in a step,
looks at all signal hits and a share of the others; that of `hit_filter_paper` attends in a window
of hits. There `sdpa` makes a score of every pair of hits, so that it is left out where events are
too long for it.

Matching: a batch of events with 50 to 100 % of the given number of tracks and 1.5 queries a track
of the fullest one. Every query has a cost for every track. Costs are drawn at random: those of a
trained network, where each track has a good query, its spare queries compete and neighbours are
alike, or those of an untrained one, of noise alone. All find the same total cost:

- hepattn: our `assign` with the solver `scipy`, which copies the costs of real tracks and solves
  the events on several threads.
- hepattn lapx: the same with that solver, if it is installed.
- loop over events: scipy on the real tracks of one event after the other.
- padded loop: as mask transformers do it: tracks padded with a constant cost to the number of
  queries, one copy of the whole tensor to the host, scipy on one event after the other.

Events and costs are made before the clock starts.
"""

# B events, N hits, M queries, P tracks

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from jsonargparse import ArgumentParser
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.optim import Optimizer

import measure
import report
from hepattn.data.trackml import Event, HitBatch, hit_features
from hepattn.data.trackml.clusters import CHARGE_COLUMNS, SHAPE_COLUMNS
from hepattn.experiments import trackml
from hepattn.experiments.trackml.hit_filter import HitFilter
from hepattn.nn.normalise import Feature
from hepattn.ops.assignment import assign
from hepattn.ops.attention.backend import is_installed
from hepattn.training.optimizer import parameter_groups
from measure import FORWARD, Seconds
from report import Goal

STEP = "training step"
NO_LIMIT = 2**62
# Backends on a device and the longest events, in hits, at which they answer in reasonable time and
# memory, forward and in a training step. The others are compared with the first that is installed.
LONGEST = {
    "cpu": {"local": (NO_LIMIT,) * 2, "sdpa": (16384, 8192)},
    "cuda": {"flash": (NO_LIMIT,) * 2, "flex": (NO_LIMIT,) * 2, "sdpa": (32768, 16384)},
}
# A training step of the paper's network on more hits takes more memory than a laptop has.
LONGEST_STEP = {("hit_filter_paper", "cpu"): 16384}
LONGEST_COMPARED = 2048  # of these, logits are compared
HITS_PER_PARTICLE = 6
# How far equal logits may be apart after several layers.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.3}

OWN, LAPX, LOOP, PADDED = "hepattn", "hepattn lapx", "loop over events", "padded loop"
QUERIES_PER_TRACK = 1.5
TRAINED, UNTRAINED = KINDS = ("trained", "untrained")
PADDING_COST = 1e3  # far above any real one

Filters = dict[str, HitFilter]  # by backend
Match = Callable[[], list[np.ndarray]]  # the query of each real track, event by event


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    filters = {name: make_filter(name, options) for name in backends(options)}
    result = measure.describe(options) | {
        "config": options.config,
        "events": options.events,
        "largest_difference": differences(filters, options),
        "filter": {
            direction: {n: time_filter(filters, n, direction, options) for n in hits}
            for direction, hits in ((FORWARD, options.hits), (STEP, options.hits_step))
        },
        "matching": {
            kind: {n: time_matching(n, kind, options) for n in options.tracks} for kind in KINDS
        },
    }
    goals = list_goals(result)
    result["goals"] = [goal.to_json() for goal in goals]
    show(result, goals, options)
    path = report.write(result, options, "trackml")
    report.draw_lines(result["filter"], path, options.config)
    bars = {f"{n:,} tracks": seconds for n, seconds in result["matching"][TRAINED].items()}
    title = f"matching of {options.events} events, costs as of a trained network"
    report.draw_bars(bars, path.with_name("trackml_matching.png"), title)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = measure.make_parser(__doc__, repeats=3)
    configs = ("hit_filter", "hit_filter_paper")
    parser.add_argument("--config", choices=configs, default="hit_filter", help="of the network")
    parser.add_argument("--hits", type=int, nargs="+", help="events of the hit filter, in hits")
    parser.add_argument("--tracks", type=int, nargs="+", help="events of the matching, in tracks")
    parser.add_argument("--events", type=int, default=4, help="events that are matched at once")
    options = measure.parse(parser, arguments)
    if options.hits is None:
        options.hits = [1024, 2048, *([] if options.quick else [4096, 8192, 16384, 60000])]
    longest = LONGEST_STEP.get((options.config, options.device), NO_LIMIT)
    options.hits_step = [n for n in options.hits if n <= longest]
    if options.tracks is None:
        options.tracks = [100, 200, *([] if options.quick else [500, 1000, 2000])]
    return options


def backends(options: argparse.Namespace) -> list[str]:
    return [name for name in LONGEST[options.device] if is_installed(name)]


def load_config(options: argparse.Namespace) -> dict:
    return yaml.safe_load(Path(trackml.__file__).with_name(f"{options.config}.yaml").read_text())


def make_filter(backend: str, options: argparse.Namespace) -> HitFilter:
    """Build the hit filter of a shipped config with a backend of our choice."""
    config = load_config(options)
    model = config["model"] | {"features": config["data"]["features"]}
    network = model["net"]["init_args"]
    owner = network["encoder"]["init_args"] if "encoder" in network else network
    owner["attention"] = owner.get("attention", {}) | {"backend": backend}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(HitFilter, "model")
    torch.manual_seed(0)  # the same weights for all
    return parser.instantiate(parser.parse_object({"model": model})).model.to(options.device)


def draw_event(num_hits: int, options: argparse.Namespace) -> HitBatch:
    """Draw an event of hits on the pixel barrels, everything about them at random."""
    rng = np.random.default_rng(0)
    phi, eta = rng.uniform(-np.pi, np.pi, num_hits), rng.uniform(-2.5, 2.5, num_hits)
    r = rng.choice([32.0, 72.0, 116.0, 172.0], num_hits)
    columns = {"hit_id": np.arange(num_hits)}
    columns |= {"x": r * np.cos(phi), "y": r * np.sin(phi), "z": r * np.sinh(eta)}
    columns |= {name: rng.random(num_hits) for name in (*CHARGE_COLUMNS, *SHAPE_COLUMNS)}
    features = [Feature(**feature) for feature in load_config(options)["data"]["features"]]
    hits = hit_features(Event("event000000000", columns), features)  # (N, F)
    valid = np.ones(num_hits, dtype=bool)
    owner = rng.integers(-(-num_hits // HITS_PER_PARTICLE), size=num_hits) + 1
    label = owner % 10 == 0
    fields = {"hits": hits, "valid": valid, "label": label, "particle_id": owner}
    tensors = {name: torch.tensor(x[None], device=options.device) for name, x in fields.items()}
    return HitBatch(**dict.fromkeys(HitBatch._fields) | tensors)


def autocast(batch: HitBatch) -> torch.autocast:
    return torch.autocast(batch.hits.device.type, torch.bfloat16, enabled=batch.hits.is_cuda)


def run_forward(module: HitFilter, batch: HitBatch) -> Tensor:
    with torch.no_grad(), autocast(batch):
        return module.eval()(batch)


def run_step(module: HitFilter, batch: HitBatch, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    with autocast(batch):
        losses = module.losses(batch, module.train()(batch))
    sum(losses.values()).backward()
    optimizer.step()


def differences(filters: Filters, options: argparse.Namespace) -> dict[str, float]:
    """Largest absolute difference of each backend's logits from the first one's.

    Raises:
        RuntimeError: If it is too large.
    """
    batch = draw_event(min(max(options.hits), LONGEST_COMPARED), options)
    outs = {name: run_forward(module, batch) for name, module in filters.items()}
    (own, expected), *others = outs.items()
    apart = {name: (out - expected).abs().max().item() for name, out in others}
    for name, difference in apart.items():
        if not difference <= TOLERANCE[options.dtype]:
            raise RuntimeError(f"{name} differs by {difference:.1e} from {own}: a wrong answer")
    return apart


def time_filter(
    filters: Filters, num_hits: int, direction: str, options: argparse.Namespace
) -> Seconds:
    """Median seconds of every backend that can take events of this length."""
    batch, works = draw_event(num_hits, options), {}
    for name, module in filters.items():
        if num_hits <= LONGEST[options.device][name][direction == STEP]:
            step = partial(run_step, module, batch, module.make_optimizer(parameter_groups(module)))
            works[name] = step if direction == STEP else partial(run_forward, module, batch)
    return measure.interleave(works, options)


def draw_costs(num_tracks: int, kind: str, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Draw the costs (B, M, P) of events and their numbers of tracks (B)."""
    generator = torch.Generator().manual_seed(0)
    num_queries = int(QUERIES_PER_TRACK * num_tracks)
    number = torch.linspace(num_tracks, num_tracks / 2, options.events).long()  # (B,)
    noise = torch.randn(options.events, num_queries, num_tracks, generator=generator)
    cost = 1 + 0.05 * noise  # (B, M, P)
    if kind == UNTRAINED:
        return cost, number
    for event, count in zip(cost, number.tolist(), strict=True):
        # Places along phi: real tracks at theirs, queries at those of the tracks that they found.
        found = torch.randint(count, (num_queries,), generator=generator)
        found[torch.randperm(num_queries, generator=generator)[:count]] = torch.arange(count)
        apart = (found[:, None] - torch.arange(num_tracks)).abs()  # (M, P)
        event -= 0.2 * torch.exp(-apart / 5)
        event[apart == 0] -= 0.6 * torch.rand(num_queries, generator=generator)
    return cost, number


def make_matchers(cost: Tensor, number: Tensor, options: argparse.Namespace) -> dict[str, Match]:
    """Make what matches, all with an answer of the same form."""
    num_queries, num_tracks = cost.shape[1:]
    is_real = torch.arange(num_tracks) < number[:, None, None]  # (B, 1, P)
    padding = (0, num_queries - num_tracks)
    padded = F.pad(cost.where(is_real, PADDING_COST), padding, value=PADDING_COST)  # (B, M, M)
    cost, padded = cost.to(options.device), padded.to(options.device)
    queries, counts = torch.full_like(number, num_queries), number.tolist()

    def match_own(solver: str) -> list[np.ndarray]:
        found = assign(cost, queries, number, solver, torch.get_num_threads())  # (B, P)
        return [row[:count] for row, count in zip(found.cpu().numpy(), counts, strict=True)]

    def loop() -> list[np.ndarray]:
        rows = zip(cost, counts, strict=True)
        return [linear_sum_assignment(event[:, :n].T.cpu().numpy())[1] for event, n in rows]

    def loop_padded() -> list[np.ndarray]:
        solved = [linear_sum_assignment(event) for event in padded.cpu().numpy()]
        # Queries in the order of the tracks, real ones first.
        return [q[np.argsort(p)][:n] for (q, p), n in zip(solved, counts, strict=True)]

    matchers: dict[str, Match] = {OWN: partial(match_own, "scipy")}
    if find_spec("lap"):
        matchers[LAPX] = partial(match_own, "lapx")
    return matchers | {LOOP: loop, PADDED: loop_padded}


def time_matching(num_tracks: int, kind: str, options: argparse.Namespace) -> Seconds:
    """Median seconds of each way to match.

    Raises:
        RuntimeError: If one finds another total cost than the others.
    """
    cost, number = draw_costs(num_tracks, kind, options)
    matchers = make_matchers(cost, number, options)
    totals = {name: total_cost(cost, match()) for name, match in matchers.items()}
    for name, total in totals.items():
        if not math.isclose(total, totals[OWN], rel_tol=1e-5):
            raise RuntimeError(f"{name} finds a total cost of {total}, {OWN} of {totals[OWN]}")
    return measure.interleave(matchers, options)


def total_cost(cost: Tensor, queries: list[np.ndarray]) -> float:
    """Sum of the costs of real tracks, each of which has its own query."""
    rows = zip(cost.double().numpy(), queries, strict=True)
    return sum(float(event[query, np.arange(len(query))].sum()) for event, query in rows)


def list_goals(result: dict) -> list[Goal]:
    """Compare with what the project set out to reach."""
    seconds = result["matching"][TRAINED].get(1000)
    ratio = None if seconds is None else seconds[PADDED] / seconds[OWN]
    return [Goal(f"× {PADDED}, matching of 1,000 tracks", ratio, ">=", 3)]


def show(result: dict, goals: Sequence[Goal], options: argparse.Namespace) -> None:
    console, own = report.make_console(), backends(options)[0]
    machine = f"{result['dtype']}, threads: {result['threads']}, clock: {result['clock']}"
    title = f"network of {options.config}.yaml, {machine}"
    report.print_ratios(title, own, label_rows(result["filter"], "hits"))
    for name in backends(options):
        forward, step = LONGEST[options.device][name]
        if step < NO_LIMIT:
            console.print(f"{name}: left out above {forward:,} hits forward, {step:,} in a step")
    if len(options.hits_step) < len(options.hits):
        console.print(f"{STEP}: left out above {max(options.hits_step, default=0):,} hits")
    largest = ", ".join(f"{name} {x:.1e}" for name, x in result["largest_difference"].items())
    console.print(f"largest difference from {own}: {largest}")
    title = f"matching of {options.events} events of 50 to 100 % of so many tracks, {machine}"
    report.print_ratios(title, OWN, label_rows(result["matching"], "tracks"))
    report.print_goals(goals)


def label_rows(parts: dict[str, dict[int, Seconds]], unit: str) -> dict[str, Seconds]:
    return {f"{n:,} {unit} {part}": row for part, rows in parts.items() for n, row in rows.items()}


if __name__ == "__main__":
    main()
