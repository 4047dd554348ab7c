"""Calibrate the probabilities of a run's classifier and write the checkpoint that has them."""

# J events, O outputs, K bins

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from hepattn.data.error import DataError
from hepattn.deploy.calibration import (
    CalibrationOptions,
    Method,
    Optimizer,
    Scaling,
    Scored,
    fit_scaling,
    join,
    mean_loss,
)
from hepattn.deploy.command import open_run, run_parser
from hepattn.metrics.calibration import Reliability, reliability
from hepattn.nn.scaling import ScaledNetwork, class_logits
from hepattn.training.configs import ConfigError
from hepattn.training.figures import new_figure, save_figure
from hepattn.training.load import LoadedRun
from hepattn.training.module import free_folder
from hepattn.training.report import write_figures
from hepattn.training.weights import TRAINING_STATE, read_weights

Weights = Literal["signed", "absolute", "none"]


@dataclass(frozen=True)
class Figures:
    """How good the probabilities of some events are.

    Args:
        loss: Weighted mean of −ln p of the true class.
        accuracy: Weighted share of events whose most likely class is the true one.
        error: Expected calibration error, see `Reliability.error`.
        num_events: Number of events.
    """

    loss: float
    accuracy: float
    error: float
    num_events: int


def calibrate(
    loaded: LoadedRun,
    path: Path,
    folder: Path,
    options: CalibrationOptions = CalibrationOptions(),  # noqa: B008 frozen
    weights: Weights = "signed",
) -> Scaling:
    """Fit the scaling on the calibration split and write a checkpoint that applies it.

    The checkpoint is an ordinary one of the run without the state of its training: ``test``,
    ``predict`` and the tools for runs take it as it is. A scaling that the loaded checkpoint
    had is replaced.

    Args:
        loaded: The run. Its network must be a `ScaledNetwork`, its module must define
            ``network_inputs``, its data ``calib_dataloader()`` with batches that have ``label``
            and ``weight``.
        path: Checkpoint to write.
        folder: Where to write ``metrics.json`` and ``reliability.png``: of the calibration split,
            and of the test split where there is one with labels.
        options: How to fit.
        weights: Whether events weigh what the data says, its absolute value, or all the same.

    Raises:
        FileExistsError: If the checkpoint exists.
        ConfigError: If the run can't be calibrated, or an option is refused.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another --output or remove it")
    net = loaded.module.net
    if not isinstance(net, ScaledNetwork):
        raise ConfigError(
            f"{type(loaded.module).__name__} can't be calibrated: its network has no scaling of "
            "logits; give it a ScaledNetwork"
        )
    batches = list(_score(loaded, _calibration_batches(loaded), weights))
    fitted = fit_scaling(batches, options)
    if not fitted.converged:
        rank_zero_warn(
            f"the fit did not reach its minimum in {max(fitted.steps)} steps (gradient "
            f"{fitted.gradient:.2g}); raise --max_iter, or take --optimizer lbfgs_line_search"
        )
    splits = {"calib": join(batches)}
    if test := _score_test(loaded, weights):
        splits["test"] = join(test)
    _write_report(folder, splits, fitted, options, weights, loaded.checkpoint.name)
    net.scaling.weight.copy_(fitted.weight)
    net.scaling.bias.copy_(fitted.bias)
    state = {k: v for k, v in read_weights(loaded.checkpoint).items() if k not in TRAINING_STATE}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    torch.save({**state, "state_dict": loaded.module.state_dict()}, part)
    part.replace(path)
    return fitted


def _calibration_batches(loaded: LoadedRun) -> Iterable[Any]:
    make = getattr(loaded.data, "calib_dataloader", None)
    if make is None:
        raise ConfigError(f"{type(loaded.data).__name__} has no calibration split")
    loaded.data.prepare_data()
    loaded.data.setup("test")
    return make()


def _score_test(loaded: LoadedRun, weights: Weights) -> list[Scored]:
    """The test events with labels; nothing where the run has none."""
    try:
        return list(_score(loaded, loaded.test_batches(), weights))
    except DataError as error:
        rank_zero_warn(f"the report is of the calibration split alone: {error}")
        return []


@torch.no_grad()
def _score(loaded: LoadedRun, batches: Iterable[Any], weights: Weights) -> Iterable[Scored]:
    """Logits before the scaling of the labelled events of some batches."""
    for batch in batches:
        known = batch.label >= 0
        if not known.any():
            continue
        logit = loaded.module.net.network(*loaded.module.network_inputs(batch))[known]
        if not logit.isfinite().all():
            raise FloatingPointError("the network's logits are not finite; its training diverged")
        weight = batch.weight[known].double()
        if weights != "signed":
            weight = weight.abs() if weights == "absolute" else torch.ones_like(weight)
        yield Scored(logit.double(), batch.label[known], weight)


def _probability(scored: Scored) -> torch.Tensor:
    return class_logits(scored.logit).softmax(-1)


def figures(scored: Scored) -> Figures:
    """Judge the probabilities of some events."""
    probability, weight = _probability(scored), scored.weight
    right = probability.argmax(1) == scored.label
    return Figures(
        loss=float(mean_loss(scored)),
        accuracy=float((weight * right).sum() / weight.sum()),
        error=reliability(probability, scored.label, weight).error(),
        num_events=len(scored.label),
    )


def draw_reliability(panels: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """Draw observed against predicted shares, and how the predictions are spread.

    Args:
        panels: For each panel by its title, curves by their names.
    """
    figure, axes = new_figure(len(panels), 2, panel=(6.0, 4.0))
    for column, (title, curves) in enumerate(panels.items()):
        shares, spread = axes[column], axes[column + len(panels)]
        shares.plot([0, 1], [0, 1], color="grey", linestyle="--")
        for name, bins in curves.items():
            predicted, observed, edges = (
                x.cpu().numpy() for x in (bins.predicted, bins.observed, bins.edges)
            )
            shares.plot(predicted, observed, "o-", label=f"{name}, ECE {bins.error():.4f}")
            part = (bins.weight / bins.weight.sum()).cpu().numpy()
            spread.stairs(part, edges, label=name)
        shares.set(title=title, ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
        shares.legend(fontsize="small")
        spread.set(xlabel="predicted probability", ylabel="share of events", xlim=(0, 1))
    return figure


def _write_report(
    folder: Path,
    splits: Mapping[str, Scored],
    fitted: Scaling,
    options: CalibrationOptions,
    weights: Weights,
    checkpoint: str,
) -> None:
    content: dict[str, Any] = {}
    panels: dict[str, dict[str, Reliability]] = {}
    for name, before in splits.items():
        cases = {"before": before, "after": before._replace(logit=fitted.apply(before.logit))}
        content[name] = {case: figures(scored) for case, scored in cases.items()}
        panels[name] = {
            case: reliability(_probability(scored), scored.label, scored.weight)
            for case, scored in cases.items()
        }
    save_figure(draw_reliability(panels), folder / "reliability.png")
    _print(content, fitted, options)
    scaling = {"weight": fitted.weight.tolist(), "bias": fitted.bias.tolist()}
    if options.method == "temperature":
        scaling["temperature"] = float(1 / fitted.weight[0, 0])
    write_figures(
        folder,
        {
            "checkpoint": checkpoint,
            "options": {**asdict(options), "weights": weights},
            "scaling": scaling,
            "steps": list(fitted.steps),
            "gradient": fitted.gradient,
            "converged": fitted.converged,
            **content,
        },
    )


def _print(
    content: Mapping[str, Mapping[str, Figures]], fitted: Scaling, options: CalibrationOptions
) -> None:
    title = f"{options.method} scaling"
    if options.method == "temperature":
        title += f", T = {float(1 / fitted.weight[0, 0]):.4f}"
    table = Table(title=title)
    table.add_column("split")
    table.add_column("")
    for column in ("loss", "accuracy", "ECE", "events"):
        table.add_column(column, justify="right")
    for split, cases in content.items():
        for case, found in cases.items():
            values = (found.loss, found.accuracy, found.error)
            table.add_row(split, case, *(f"{v:.5f}" for v in values), str(found.num_events))
    Console(width=100).print(table)


def _parser() -> ArgumentParser:
    parser = run_parser(
        "calibrate", "Calibrate the probabilities of a run's classifier on its calibration split."
    )
    default = CalibrationOptions()
    add = parser.add_argument
    add("--method", choices=get_args(Method), default=default.method, help="What is fitted.")
    add("--optimizer", choices=get_args(Optimizer), default=default.optimizer)
    add("--lr", type=float, default=default.lr, help="Learning rate, the length of a first step.")
    add("--max_iter", type=int, default=default.max_iter, help="Most steps of a fit.")
    add(
        "--fit_all",
        choices=("true", "false"),
        default="true",
        help="One fit to all events, or one a batch and then their mean.",
    )
    add("--set_temperature", type=float, help="Temperature to set instead of fitting it.")
    add(
        "--weights",
        choices=get_args(Weights),
        default="signed",
        help="Weights of the events: those of the data, their absolute values, or none.",
    )
    add(
        "--output",
        type=Path,
        help="Checkpoint to write, by default ckpts/CHECKPOINT_calibrated.ckpt in the run.",
    )
    return parser


def _options(parsed: Namespace) -> CalibrationOptions:
    return CalibrationOptions(
        parsed.method,
        parsed.optimizer,
        parsed.lr,
        parsed.max_iter,
        parsed.fit_all == "true",
        parsed.set_temperature,
    )


def main(args: Sequence[str] | None = None) -> None:
    """Calibrate a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    with open_run(_parser(), args) as (loaded, parsed):
        name = f"{loaded.checkpoint.stem}_calibrated.ckpt"
        path = parsed.output or loaded.folder / "ckpts" / name
        folder = free_folder(loaded.folder / "eval" / "calibration")
        calibrate(loaded, path, folder, _options(parsed), parsed.weights)
    print(f"calibrated checkpoint written to {path}")
    print(f"figures and plot written to {folder}")
