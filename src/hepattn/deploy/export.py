"""Write the network of a run as an ONNX file that answers as the network does."""

# B events, N tokens

import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from hepattn.deploy.command import open_run, run_parser
from hepattn.nn.normalise import Feature, Normalise
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun
from hepattn.training.run_directory import write_atomically

TOLERANCE = 1e-3
Inputs = tuple[Tensor, ...]
Answer = Callable[[Inputs], list[NDArray[np.generic]]]


@dataclass(frozen=True)
class Export:
    """A network in an ONNX file, compared with itself.

    Args:
        path: The file.
        description: The JSON file beside it: names, types and shapes of inputs and outputs, the
            features, the classes, where the weights come from, what was compared.
        difference: Largest difference between an output of the file and of the network, divided
            by the larger of one and the largest output.
        sizes: Batches that were compared (B, N).
    """

    path: Path
    description: Path
    difference: float
    sizes: list[tuple[int, int]]


def export(loaded: LoadedRun, path: Path, num_batches: int = 3) -> Export:
    """Export the network of a run for any number of events and tokens, and compare the answers.

    They are compared on test events: batches as they come, first events alone, and batches cut to
    half their length. A file with other answers is not left behind.

    Args:
        loaded: The run. Its module must define ``network_inputs``.
        path: File to write, ``.onnx``.
        num_batches: Batches of test events to compare.

    Raises:
        FileExistsError: If one of the files exists.
        ConfigError: If the answers differ by more than 0.001, or a suffix or number is wrong.
        ImportError: If the extra ``deploy`` is not installed.
    """
    description = path.with_suffix(".json")
    if path.suffix != ".onnx":
        raise ConfigError(f"--output {path} must end in .onnx")
    if num_batches < 1:
        raise ConfigError(f"--num_batches={num_batches} must be at least 1")
    for file in (path, description):
        if file.exists():
            raise FileExistsError(f"{file} exists; choose another --output or remove it")
    _require_extra()
    net = loaded.module.net
    batches = [
        loaded.module.network_inputs(batch) for batch in islice(loaded.test_batches(), num_batches)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".onnx.part")
    try:
        session = _write_onnx(net, batches[0], part)
        difference, sizes = _compare(net, session, list(_cuts(batches)))
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"the exported network answers otherwise, by {difference:.2g} of the output where "
                f"{TOLERANCE:g} is allowed; an option of the network that ONNX cannot express "
                "exactly, or a cut that falls on another side"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    content = _describe(loaded, session, difference, sizes)
    write_atomically(description, json.dumps(content, indent=2) + "\n")
    return Export(path, description, difference, sizes)


def _require_extra() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export needs onnx, onnxscript and onnxruntime: pip install 'hepattn[deploy]'"
        ) from error


def _write_onnx(net: nn.Module, inputs: Inputs, path: Path) -> Any:
    """Write the file and open it: an ``onnxruntime.InferenceSession``."""
    import onnxruntime

    dims = {0: torch.export.Dim("events"), 1: torch.export.Dim("tokens", min=2)}
    example = tuple(_enlarge(x) for x in inputs)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():  # the exporter tells of itself
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            example,
            input_names=_input_names(net)[: len(inputs)],
            output_names=_output_names(net, inputs),
            dynamo=True,
            dynamic_shapes=tuple({d: dims[d] for d in range(min(x.dim(), 2))} for x in example),
            verbose=False,
        )
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for entry in session.get_inputs():  # the exporter tries again with constants and says nothing
        if any(isinstance(size, int) for size in entry.shape[:2]):
            raise ConfigError(
                f"the network was exported for inputs {entry.name} of shape {entry.shape} only: it "
                "makes one of these numbers a constant; torch.export.export says where"
            )
    return session


def _input_names(net: nn.Module) -> list[str]:
    return list(inspect.signature(net.forward).parameters)


@torch.no_grad()
def _output_names(net: nn.Module, inputs: Inputs) -> list[str]:
    """Fields of what the network returns, ``output`` where it returns one tensor."""
    leaves, _ = tree_flatten_with_path(net(*inputs))
    return [keystr(place).lstrip(".") or "output" for place, _ in leaves]


def _enlarge(x: Tensor) -> Tensor:
    """Give an example two events and two tokens, since one would be taken for a constant."""
    for dim in range(min(x.dim(), 2)):
        if x.shape[dim] == 1:
            x = torch.cat([x, x], dim)
    return x


def _cuts(batches: Sequence[Inputs]) -> Iterator[Inputs]:
    for batch in batches:
        B, N = batch[0].shape[:2]
        for num_events, num_tokens in dict.fromkeys([(B, N), (1, N), (B, N // 2)]):
            if num_tokens >= 2:
                yield tuple(_cut(x, num_events, num_tokens) for x in batch)


def _cut(x: Tensor, num_events: int, num_tokens: int) -> Tensor:
    return x[:num_events] if x.dim() == 1 else x[:num_events, :num_tokens]


@torch.no_grad()
def _compare(
    net: nn.Module, session: Any, batches: Sequence[Inputs]
) -> tuple[float, list[tuple[int, int]]]:
    worst = 0.0
    used = {entry.name for entry in session.get_inputs()}
    for batch in batches:
        named = zip(_input_names(net), batch, strict=False)
        arrays = {name: x.numpy() for name, x in named if name in used}
        found = session.run(None, arrays)
        expected = [x.numpy() for x in tree_leaves(net(*batch))]
        for ours, theirs in zip(expected, found, strict=True):
            scale = max(1.0, float(np.abs(ours).max(initial=0)))
            difference = np.abs(ours.astype(np.float64) - theirs).max(initial=0) / scale
            worst = float(np.maximum(worst, difference))  # NaN stays
    return worst, [(len(batch[0]), batch[0].shape[1]) for batch in batches]


def _describe(
    loaded: LoadedRun, session: Any, difference: float, sizes: list[tuple[int, int]]
) -> dict[str, Any]:
    return {
        "inputs": [_describe_tensor(entry) for entry in session.get_inputs()],
        "outputs": [_describe_tensor(entry) for entry in session.get_outputs()],
        "features": [asdict(feature) for feature in _features(loaded.module.net)],
        "classes": _classes(loaded),
        "run": str(loaded.folder),
        "checkpoint": loaded.checkpoint.name,
        "torch": torch.__version__,
        "worst_relative_difference": difference,
        "compared_batches": sizes,
    }


def _describe_tensor(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "type": entry.type, "shape": entry.shape}


def _features(net: nn.Module) -> tuple[Feature, ...]:
    """Raw columns that the network takes, which it scales itself."""
    return next((m.features for m in net.modules() if isinstance(m, Normalise)), ())


def _classes(loaded: LoadedRun) -> list[str] | None:
    """Names of the classes, if the data has any."""
    classes = getattr(loaded.data, "classes", None)
    return None if classes is None else list(classes)


def main(args: Sequence[str] | None = None) -> None:
    """Export a run from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser(
        "export", "Write the network of a run as ONNX, for any number of events and tokens."
    )
    parser.add_argument(
        "--output", type=Path, help="File to write, by default deploy/model.onnx in the run."
    )
    parser.add_argument(
        "--num_batches", type=int, default=3, help="Batches of test events to compare on."
    )
    with open_run(parser, args) as (loaded, options):
        path = options.output or loaded.folder / "deploy" / "model.onnx"
        done = export(loaded, path, options.num_batches)
    sizes = ", ".join(f"{num_events} x {num_tokens}" for num_events, num_tokens in done.sizes)
    print(f"compared on batches (events x tokens): {sizes}")
    print(f"worst difference, relative to the largest output: {done.difference:.2g}")
    print(f"written to {done.path} and {done.description}")
