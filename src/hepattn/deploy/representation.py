"""Draw in two dimensions what the head of a run's network reads of test events."""

# B events of a batch, J events, D features

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from hepattn.deploy.command import open_run, run_parser
from hepattn.training.configs import ConfigError
from hepattn.training.figures import new_figure, save_figure
from hepattn.training.load import LoadedRun
from hepattn.training.module import free_folder
from hepattn.training.report import write_figures

Method = Literal["pca", "tsne"]
HEAD = "head"  # what every network of this library calls its last layers


class Principal(NamedTuple):
    """Events along the directions in which they differ most.

    Attributes:
        coordinates: Of each event along the first two (J, 2).
        explained: Share of the variance along all directions, falling (min(J, D)).
    """

    coordinates: Tensor
    explained: Tensor


@torch.no_grad()
def read_by_head(net: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Let a network answer and keep what its head reads.

    Args:
        net: The network. Of several heads, as fused networks have them, all count.
        inputs: What it is called with.

    Returns:
        (B, D); what several heads read stands one behind the other.

    Raises:
        ConfigError: If there is no head, or it does not read one vector an event.
    """
    read: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        read.append(given[0])

    heads = [module for name, module in net.named_modules() if name.split(".")[-1] == HEAD]
    handles = [head.register_forward_pre_hook(keep) for head in heads]
    try:
        with torch.compiler.set_stance("force_eager"):  # graphs know nothing of hooks
            net(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not read or any(x.shape[:1] != inputs[0].shape[:1] or x.ndim != 2 for x in read):
        raise ConfigError(
            f"{type(net).__name__} has no part called {HEAD} that reads one vector an event; "
            "choose a run that classifies events or jets"
        )
    return torch.cat(read, 1)


def principal_components(x: Tensor) -> Principal:
    """Find the directions in which events differ most, by singular values.

    Args:
        x: Features (J, D), at least two of each.

    Returns:
        Each direction has the sign that makes its largest component positive.
    """
    x = x.double()
    left, size, right = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    largest = right.abs().argmax(1, keepdim=True)
    sign = right.gather(1, largest).sign().squeeze(1)
    variance = size.square()
    total = variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    return Principal((left * size * sign)[:, :2], variance / total)


def neighbour_embedding(x: Tensor, perplexity: float = 30.0, seed: int = 0) -> Tensor:
    """Place events so that near ones stay near: t-SNE (JMLR 9 (2008) 2579), by scikit-learn.

    Args:
        x: Features (J, D), with more events than the perplexity.
        perplexity: About how many neighbours of an event count.
        seed: Seed of what is random.

    Returns:
        (J, 2)

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError(
            "--method=tsne needs scikit-learn: pip install 'hepattn[eval]', or take --method pca"
        ) from error
    peer = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return torch.from_numpy(peer.fit_transform(x.float().numpy())).double()


def draw(
    coordinates: Tensor, label: Tensor, classes: Sequence[str], axes: tuple[str, str]
) -> Figure:
    """Draw a point for each event, in the colour of its class.

    Args:
        coordinates: Where (J, 2).
        label: Number of the class (J).
        classes: Names of the classes.
        axes: Names of the axes.
    """
    figure, (axis,) = new_figure(panel=(8.0, 6.0))
    for place, name in enumerate(classes):
        own = coordinates[label == place].numpy()
        axis.scatter(own[:, 0], own[:, 1], s=4, alpha=0.5, color=f"C{place}", label=name)
    axis.set(xlabel=axes[0], ylabel=axes[1])
    axis.legend(fontsize="small", markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _read(loaded: LoadedRun, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (J, D), labels and rows, both (J), of some labelled test events, in their order."""
    parts = []
    for batch in loaded.test_batches():
        x = read_by_head(loaded.module.net, loaded.module.network_inputs(batch))
        known = batch.label >= 0
        parts.append((x[known], batch.label[known], batch.index[known]))
    columns = [torch.cat(part) for part in zip(*parts, strict=True)]
    order = torch.randperm(len(columns[0]), generator=torch.Generator().manual_seed(0))
    chosen = order[:num].sort().values
    x, label, event = (column[chosen] for column in columns)
    return x, label, event


def write_representation(
    loaded: LoadedRun,
    folder: Path,
    method: Method = "pca",
    num: int = 2000,
    perplexity: float = 30.0,
) -> None:
    """Write what the head reads of test events, in two dimensions.

    Args:
        loaded: The run. Its module must define ``network_inputs``, its data ``classes``, its
            batches ``label`` and ``index``.
        folder: Where to write ``representation.png``, ``representation.parquet`` with a row an
            event (``event``, ``label``, ``x``, ``y``), and ``metrics.json``.
        method: Principal components, or t-SNE.
        num: How many events are drawn at random from the test split, at most.
        perplexity: Of t-SNE, about how many neighbours of an event count.

    Raises:
        ConfigError: If an option is out of range or there are too few labelled test events.
        ImportError: If the method needs a package that is not installed.
    """
    least = perplexity + 1 if method == "tsne" else 2
    if num < least or perplexity <= 0:
        raise ConfigError(f"--num={num} must be at least {least:g}, --perplexity positive")
    classes = getattr(loaded.data, "classes", None)
    if classes is None:
        raise ConfigError(f"{type(loaded.data).__name__} has no classes to tell apart")
    x, label, event = _read(loaded, num)
    if len(x) < least:
        raise ConfigError(f"{len(x)} labelled test events must be at least {least:g}")
    figures = {"method": method, "num_events": len(x), "dim": x.shape[1]}
    if method == "pca":
        coordinates, explained = principal_components(x)
        figures["explained"] = explained[:10].tolist()
        axes = tuple(f"component {i + 1} ({share:.0%})" for i, share in enumerate(explained[:2]))
    else:
        coordinates = neighbour_embedding(x, perplexity)
        figures["perplexity"] = perplexity
        axes = ("t-SNE 1", "t-SNE 2")
    save_figure(draw(coordinates, label, classes, axes), folder / "representation.png")
    columns = {"event": event, "label": label, "x": coordinates[:, 0], "y": coordinates[:, 1]}
    table = pa.table({name: np.asarray(column) for name, column in columns.items()})
    pq.write_table(table, folder / "representation.parquet")
    write_figures(folder, {**figures, "checkpoint": loaded.checkpoint.name})


def main(args: Sequence[str] | None = None) -> None:
    """Draw the representation of a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser(
        "representation", "Draw what the head of a run's network reads of each test event."
    )
    parser.add_argument(
        "--method",
        choices=get_args(Method),
        default="pca",
        help="Principal components, or t-SNE (scikit-learn).",
    )
    parser.add_argument("--num", type=int, default=2000, help="Number of test events, at most.")
    parser.add_argument(
        "--perplexity", type=float, default=30.0, help="Neighbours that count for t-SNE."
    )
    parser.add_argument(
        "--output", type=Path, help="Folder, by default eval/representation in the run."
    )
    with open_run(parser, args) as (loaded, options):
        folder = free_folder(options.output or loaded.folder / "eval" / "representation")
        write_representation(loaded, folder, options.method, options.num, options.perplexity)
    print(f"figure and numbers written to {folder}")
