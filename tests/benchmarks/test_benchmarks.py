"""Every benchmark runs at tiny sizes and leaves its figures and plot behind."""

import json
import runpy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--repeats", "1", "--threads", "1"]

# torch's own, when its compiler is first loaded.
pytestmark = pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")

Run = Callable[..., tuple[dict, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a benchmark; its figures and what it prints."""
    monkeypatch.syspath_prepend(FOLDER)  # where the scripts find what they share

    def run_script(name: str, *arguments: object) -> tuple[dict, str]:
        flags = [str(argument) for argument in arguments]
        import_module(name).main([*TINY, *flags, "--out", str(tmp_path)])
        assert (tmp_path / f"{name}.png").stat().st_size > 0
        return json.loads((tmp_path / f"{name}.json").read_text()), capsys.readouterr().out

    return run_script


WINDOWS = ("--window", 32, "--heads", 2, "--memory-tokens", 2048)


def test_attention_is_compared_with_its_peers_and_its_goals(run: Run) -> None:
    peers = ("dense mask", "no mask", "local-attention")
    result, printed = run("attention", "--tokens", 256, 512, *WINDOWS, "--peers", *peers)
    for seconds in result["seconds"].values():
        assert set(seconds["512"]) == {"local", *peers}
    assert max(result["largest_error"].values()) < 1e-5
    reached = {goal["name"]: goal["reached"] for goal in result["goals"]}
    assert reached["largest error forward"] is True
    assert reached["× dense mask, 16k forward"] is None  # not measured
    for words in ("× dense mask", "largest error forward", "not measured"):
        assert words in printed


@pytest.mark.slow  # compiles
def test_attention_is_compared_with_flex_forward_only_on_the_cpu(run: Run) -> None:
    result, _ = run("attention", "--tokens", 256, *WINDOWS, "--peers", "flex", "flex by hand")
    assert set(result["seconds"]["forward"]["256"]) == {"local", "flex", "flex by hand"}
    assert set(result["seconds"]["forward + backward"]["256"]) == {"local"}


@pytest.mark.slow  # compiles
def test_flex_by_hand_gives_the_same_answer(run: Run) -> None:
    attention = import_module("attention")
    options = attention.parse(["--window", "32", "--heads", "2"])
    *inputs, _ = attention.draw_tensors(256, options)
    plan = attention.plan_of(256, options)
    outs = [
        attention.make_contender(name, plan, options)(*inputs)
        for name in ("flex by hand", "dense mask")
    ]
    assert (outs[0] - outs[1]).abs().max() < 1e-6


def test_pairwise_bias_is_compared_with_torch(run: Run) -> None:
    result, printed = run("bias", "--events", 2, "--tokens", 16)
    assert set(result["seconds"]) == {
        f"{direction}, dropout {dropout}"
        for direction in ("forward", "forward + backward")
        for dropout in ("0", "0.1")
    }
    assert set(result["largest_difference"]) == {"out", "grad q", "grad k", "grad v", "grad bias"}
    assert max(result["largest_difference"].values()) < 1e-5
    assert "× torch" in printed


EVENTS = ("--lengths", 60, 100, 20, "--window", 32, "--heads", 2)


def test_events_of_different_length_give_one_answer_in_every_way(run: Run) -> None:
    result, printed = run("packing", *EVENTS, "--backends", "local")
    contenders = {"packed local", "padded local", "padding + mask", "loop over events"}
    assert len(result["seconds"]) == 4
    for seconds in result["seconds"].values():
        assert set(seconds) == contenders
    assert max(result["largest_difference"].values()) < 1e-5
    assert "× loop over events" in printed


@pytest.mark.slow  # compiles
def test_packed_flex_gives_the_same_answer_forward_only_on_the_cpu(run: Run) -> None:
    result, _ = run("packing", *EVENTS)
    for direction, is_there in (("forward", True), ("forward + backward", False)):
        assert ("packed flex" in result["seconds"][f"full, {direction}"]) is is_there
        assert ("packed flex" in result["seconds"][f"window 32, {direction}"]) is is_there
    assert max(result["largest_difference"].values()) < 1e-5


def test_event_networks_are_compared_with_torch(run: Run) -> None:
    result, printed = run("events", "--events", 4)
    assert set(result["seconds"]) == {"random numbers", "full events"}
    assert all(goal["reached"] is None for goal in result["goals"])
    assert "× Set Transformer" in printed


SMALL_ENCODER = ("--tokens", 320, "--depth", 2, "--dim", 16, "--heads", 2, "--window", 32)


def test_encoder_agrees_with_its_dense_twin(run: Run) -> None:
    result, printed = run("encoder", *SMALL_ENCODER)
    for seconds in result["seconds"].values():
        assert set(seconds) == {"hepattn", "dense mask", "dense mask for free", "x-transformers"}
    assert 0 < result["largest_difference"]["dense mask"] < 1e-5
    assert result["hits_per_second"]["forward"] > 0
    assert {goal["reached"] for goal in result["goals"]} == {None}  # it was smaller
    assert "× x-transformers" in printed


def test_encoder_whose_twin_differs_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = import_module("encoder")
    monkeypatch.setitem(encoder.TOLERANCE, encoder.torch.float32, 0.0)
    with pytest.raises(RuntimeError, match=r"dense mask differs by .* wrong answer"):
        run("encoder", *SMALL_ENCODER)


SMALL_TRACKML = ("--hits", 64, 160, "--tracks", 20, "--events", 3)


def test_hit_filter_and_matching_agree_in_every_way(run: Run, tmp_path: Path) -> None:
    result, printed = run("trackml", *SMALL_TRACKML)
    for direction in ("forward", "training step"):
        for num_hits in ("64", "160"):
            assert set(result["filter"][direction][num_hits]) == {"local", "sdpa"}
    assert result["largest_difference"]["sdpa"] < 1e-5
    for kind in ("trained", "untrained"):
        peers = {"hepattn", "hepattn lapx", "loop over events", "padded loop"}
        assert set(result["matching"][kind]["20"]) | {"hepattn lapx"} == peers
    assert (tmp_path / "trackml_matching.png").stat().st_size > 0
    assert [goal["reached"] for goal in result["goals"]] == [None]  # it was smaller
    for words in ("× sdpa", "× padded loop", "sdpa: left out above 16,384 hits", "not measured"):
        assert words in printed


def test_what_takes_too_long_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trackml = import_module("trackml")
    monkeypatch.setitem(trackml.LONGEST["cpu"], "sdpa", (64, 32))
    monkeypatch.setitem(trackml.LONGEST_STEP, ("hit_filter", "cpu"), 64)
    result, printed = run("trackml", "--hits", 32, 64, 96, "--tracks", 10)
    contenders = {
        direction: {n: list(row) for n, row in rows.items()}
        for direction, rows in result["filter"].items()
    }
    assert contenders == {
        "forward": {"32": ["local", "sdpa"], "64": ["local", "sdpa"], "96": ["local"]},
        "training step": {"32": ["local", "sdpa"], "64": ["local"]},
    }
    assert "training step: left out above 64 hits" in printed


def test_network_of_the_paper_is_an_option(run: Run) -> None:
    trackml = import_module("trackml")
    options = trackml.parse(["--config", "hit_filter_paper", "--hits", "32"])
    network = trackml.make_filter("local", options)
    assert network.net.encoder.dim == 256
    batch = trackml.draw_event(16, options)
    assert trackml.run_forward(network, batch).shape == (1, 16)


def test_matching_that_costs_more_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trackml = import_module("trackml")

    def assign_in_order(cost: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.arange(cost.shape[2]).expand(cost.shape[0], -1)

    monkeypatch.setattr(trackml, "assign", assign_in_order)
    with pytest.raises(RuntimeError, match="loop over events finds a total cost of"):
        trackml.time_matching(10, "trained", trackml.parse([]))


def test_costs_of_a_trained_network_hold_a_good_query_for_each_track(run: Run) -> None:
    trackml = import_module("trackml")
    options = trackml.parse(["--events", "3"])

    def cost_of_best(kind: str) -> float:
        cost, number = trackml.draw_costs(40, kind, options)
        assert (cost.shape, number.tolist()) == ((3, 60, 40), [40, 30, 20])
        return trackml.total_cost(cost, trackml.make_matchers(cost, number, options)["hepattn"]())

    assert cost_of_best("trained") < 0.6 * cost_of_best("untrained")


def test_goals_are_reached_at_their_limits(run: Run) -> None:
    report = import_module("report")
    figures = [(30.0, ">="), (29.9, ">="), (30.0, "<="), (30.1, "<="), (None, ">=")]
    reached = [report.Goal("", figure, relation, 30.0).reached for figure, relation in figures]
    assert reached == [True, False, True, False, None]


def test_goals_take_the_least_favourable_length(run: Run) -> None:
    attention = import_module("attention")
    row = {"local": 1.0, "flex": 3.0, "dense mask": 40.0, "local-attention": 6.0}
    result = {
        "own": "local",
        "seconds": {
            "forward": {8192: row, 16384: row | {"flex": 1.5}},
            "forward + backward": {8192: row},
        },
        "time_exponent": {"forward": 1.0, "forward + backward": 1.0},
        "memory_bytes": {"tokens": 60000, "forward": 2e8, "forward + backward": 2e9},
        "largest_error": {"out": 1e-7, "grad q": 1e-7, "grad k": 4e-6, "grad v": 1e-7},
    }
    goals = {goal.name: goal for goal in attention.list_goals(result)}
    assert goals["× flex, 8k and 16k forward"].figure == 1.5
    assert goals["× dense mask, 16k forward"].reached
    assert goals["GB above the inputs, 60k forward"].reached
    assert goals["GB above the inputs, 60k with backward"].reached is False
    assert goals["largest error of gradients"].reached is False
    assert goals["exponent of time, 2k to 60k forward"].figure is None


def test_time_exponent_of_a_power_law(run: Run) -> None:
    measure = import_module("measure")
    assert measure.exponent({n: 3e-6 * n**1.5 for n in (100, 200, 1000)}) == pytest.approx(1.5)
    assert measure.exponent({100: 1.0}) is None


def test_all_benchmarks_run_one_after_the_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    runpy.run_path(str(FOLDER / "__main__.py"), run_name="__main__")
    scripts = {
        path
        for path in FOLDER.glob("*.py")
        if path.name not in ("__main__.py", "measure.py", "report.py", "xec_literal.py")
    }
    assert {Path(command[1]) for command in commands} == scripts
    assert all(command[2:] == ["--quick"] for command in commands)
