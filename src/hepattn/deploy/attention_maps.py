"""Draw and measure what the attention layers of a run attend to in test events."""

# B events, M queries, N keys, H heads, L layers

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor, nn

from hepattn.deploy.command import open_run, run_parser
from hepattn.nn.attention_maps import Quantity, record_attention
from hepattn.training.configs import ConfigError
from hepattn.training.figures import new_figure, save_figure
from hepattn.training.load import LoadedRun
from hepattn.training.module import free_folder
from hepattn.training.run_directory import write_atomically

MASS = 0.95
LAYER_SUFFIX = ".attention"  # the same for every layer of an encoder, so not worth a label
Weights = dict[str, Tensor]
Inputs = tuple[Tensor, ...]


@dataclass
class _Mean:
    """Mean over rows of weights, one for each head."""

    total: Tensor | None = None
    num_rows: int = 0

    def add(self, values: Tensor) -> None:
        """Add values (H, rows)."""
        total = values.sum(1).cpu()
        self.total = total if self.total is None else self.total + total
        self.num_rows += values.shape[1]

    def value(self) -> list[float]:
        """The means (H), none before the first row."""
        return (self.total / self.num_rows).tolist() if self.num_rows else []


@dataclass
class LayerMeans:
    """How a layer spreads its attention, as means over queries that see at least two keys.

    Args:
        entropy: Of the weights of a query, divided by the logarithm of the number of keys that
            it sees: 0 where one key has all, 1 where all have the same.
        sparsity: One minus the smallest share of the keys seen that hold 95 % of the weight: near
            0 where all have the same, near 1 where a few of many have all.
    """

    entropy: _Mean = field(default_factory=_Mean)
    sparsity: _Mean = field(default_factory=_Mean)

    def add(self, weights: Tensor, visible: Tensor) -> None:
        """Add the weights of events.

        Args:
            weights: (B, H, M, N); rows sum to one, or to zero where nothing is attended to.
            visible: True where a query sees a key (B, 1, M, N).
        """
        num_keys = visible.sum(-1).squeeze(1)  # (B, M)
        attends = weights[:, 0].sum(-1) > 0.5  # (B, M)
        rows = attends & (num_keys > 1)
        weights = weights.transpose(0, 1)[:, rows].double()  # (H, rows, N)
        num_keys = num_keys[rows].double()
        self.entropy.add(entropy(weights) / num_keys.log())
        self.sparsity.add(1 - num_keys_with(weights, MASS) / num_keys)

    def values(self) -> dict[str, list[float]]:
        """The means of each head."""
        return {"entropy": self.entropy.value(), "sparsity": self.sparsity.value()}


def entropy(weights: Tensor) -> Tensor:
    """Entropy of weights (…, N) that sum to one, in nats (…)."""
    return torch.special.entr(weights).sum(-1)


def num_keys_with(weights: Tensor, mass: float) -> Tensor:
    """Smallest number of keys that together have a share of the weights.

    Args:
        weights: (…, N), sums to one.
        mass: The share, in (0, 1).

    Returns:
        (…), at least 1.
    """
    largest_first = weights.sort(-1, descending=True).values
    return (largest_first.cumsum(-1) < mass).sum(-1) + 1


@torch.no_grad()
def watch(net: nn.Module, inputs: Inputs, layers: str = "") -> dict[Quantity, Weights]:
    """Let a network answer and record its attention.

    Args:
        net: The network.
        inputs: What it is called with.
        layers: Part of the names of the layers to watch; all by default.

    Returns:
        Recorded tensors by quantity and layer, see `record_attention`. Layers without a score bias
        have no weights without it.
    """
    with (
        record_attention(net, layers) as weights,
        record_attention(net, layers, "weights without bias") as without_bias,
        record_attention(net, layers, "visible") as visible,
    ):
        net(*inputs)
    return {"weights": weights, "weights without bias": without_bias, "visible": visible}


def draw_maps(weights: Weights) -> Figure:
    """Draw the weights of the first event, a row for each layer and a column for each head.

    Args:
        weights: (B, H, M, N) by layer.
    """
    num_heads = max(weight.shape[1] for weight in weights.values())
    figure, panels = new_figure(num_heads, len(weights), panel=(2.0, 2.0))
    for row, (name, weight) in enumerate(weights.items()):
        for head, axis in enumerate(panels[row * num_heads : (row + 1) * num_heads]):
            axis.set(xticks=[], yticks=[])
            if head >= weight.shape[1]:
                axis.set_axis_off()
                continue
            axis.imshow(weight[0, head].cpu().numpy(), aspect="auto", cmap="Blues", vmin=0)
            if row == 0:
                axis.set_title(f"head {head}", fontsize="x-small")
            if head == 0:
                axis.set_ylabel(name.removesuffix(LAYER_SUFFIX), fontsize="xx-small")
    return figure


def draw_layers(values: dict[str, dict[str, dict[str, list[float]]]]) -> Figure:
    """Draw entropy and sparsity against the layer: a point for each head, a line for their mean.

    Args:
        values: Means of the heads by name of the curve, layer and figure.
    """
    names = [name.removesuffix(LAYER_SUFFIX) for name in next(iter(values.values()))]
    figure, panels = new_figure(2, panel=(6.5, 6.0))
    for axis, figure_name in zip(panels, ("entropy", "sparsity"), strict=True):
        for index, (curve, layers) in enumerate(values.items()):
            heads = [layer[figure_name] for layer in layers.values()]
            places = [names.index(name.removesuffix(LAYER_SUFFIX)) for name in layers]
            for place, points in zip(places, heads, strict=True):
                axis.plot([place] * len(points), points, ".", color=f"C{index}", alpha=0.4)
            means = [sum(points) / len(points) if points else float("nan") for points in heads]
            axis.plot(places, means, "o-", color=f"C{index}", label=curve)
        axis.set(ylabel=figure_name, ylim=(-0.02, 1.02), xlim=(-0.5, len(names) - 0.5))
        axis.set_xticks(range(len(names)), minor=False)
        axis.set_xticklabels(names, rotation=90, fontsize="x-small")
    if len(values) > 1:
        panels[0].legend()
    return figure


def single_events(loaded: LoadedRun, max_tokens: int) -> Iterator[Inputs]:
    """Test events one by one, as what the network is called with, where it can be without padding.

    Args:
        loaded: The run. Its module must define ``network_inputs`` and its batches ``valid``.
        max_tokens: Longer events are left out, with a warning.
    """
    num_long = 0
    for batch in loaded.test_batches():
        inputs = loaded.module.network_inputs(batch)
        for index, valid in enumerate(batch.valid):
            num_tokens = int(valid.sum())
            if num_tokens > max_tokens:
                num_long += 1
            elif num_tokens:
                event = tuple(x[index : index + 1] for x in inputs)
                if loaded.module.tokens_vary:
                    event = tuple(x if x.dim() == 1 else x[:, :num_tokens] for x in event)
                yield event
    if num_long:
        rank_zero_warn(f"left out {num_long} events of more than max_tokens={max_tokens} tokens")


def write_attention_maps(
    loaded: LoadedRun,
    folder: Path,
    num: int = 5,
    layers: str = "",
    max_tokens: int = 1000,
    without_bias: bool = False,
) -> None:
    """Write the maps of a few test events, and how every layer spreads its attention in them.

    Args:
        loaded: The run.
        folder: Where to write ``event_0.png`` and so on, ``layers.png`` and ``layers.json``.
        num: Number of events.
        layers: Part of the names of the layers to watch; all by default.
        max_tokens: Longer events are left out.
        without_bias: Whether to draw also the weights that the scores would give without their
            pair bias, ``event_0_without_bias.png``. They are measured in any case.

    Raises:
        ConfigError: If there is no event to draw or no attention layer to watch.
    """
    if num < 1:
        raise ConfigError(f"--num={num} must be at least 1")
    names: tuple[Quantity, ...] = ("weights", "weights without bias")
    means: dict[str, dict[str, LayerMeans]] = {name: {} for name in names}
    num_events = 0
    for inputs in islice(single_events(loaded, max_tokens), num):
        seen = watch(loaded.module.net, inputs, layers)
        if not seen["weights"]:
            raise ConfigError(
                f"{type(loaded.module.net).__name__} has no attention layer of this library"
                + (f" with {layers!r} in its name" if layers else "")
            )
        for name in names:
            for layer, weights in seen[name].items():
                found = means[name].setdefault(layer, LayerMeans())
                found.add(weights, seen["visible"][layer])
        save_figure(draw_maps(seen["weights"]), folder / f"event_{num_events}.png")
        if without_bias and seen["weights without bias"]:
            figure = draw_maps(seen["weights without bias"])
            save_figure(figure, folder / f"event_{num_events}_without_bias.png")
        num_events += 1
    if not num_events:
        raise ConfigError(f"no test event has between 1 and {max_tokens} tokens; set --max_tokens")
    values = {
        name: {layer: found.values() for layer, found in by_layer.items()}
        for name, by_layer in means.items()
        if by_layer
    }
    save_figure(draw_layers(values), folder / "layers.png")
    content = {"num_events": num_events, "checkpoint": loaded.checkpoint.name, **values}
    write_atomically(folder / "layers.json", json.dumps(content, indent=2) + "\n")


def main(args: Sequence[str] | None = None) -> None:
    """Draw the attention maps of a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser(
        "attention-maps", "Draw what each attention layer and head of a run attends to."
    )
    parser.add_argument("--num", type=int, default=5, help="Number of test events.")
    parser.add_argument("--layers", default="", help="Part of the names of the layers; all.")
    parser.add_argument("--max_tokens", type=int, default=1000, help="Longer events are left out.")
    parser.add_argument(
        "--without_bias",
        action="store_true",
        help="Draw also the weights without the pair bias, where the network has one.",
    )
    parser.add_argument(
        "--output", type=Path, help="Folder, by default eval/attention_maps in the run."
    )
    with open_run(parser, args) as (loaded, options):
        folder = free_folder(options.output or loaded.folder / "eval" / "attention_maps")
        write_attention_maps(
            loaded,
            folder,
            options.num,
            options.layers,
            options.max_tokens,
            options.without_bias,
        )
    print(f"figures and numbers written to {folder}")
