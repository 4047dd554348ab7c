"""Write the network of a run as an ONNX file that answers as the network does."""

# B events, N tokens, C classes

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from hepattn.deploy.command import open_runs, run_parser
from hepattn.deploy.description import classes, features
from hepattn.deploy.export_cases import Case, Inputs, cuts, paddings
from hepattn.nn.scaling import class_logits
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun
from hepattn.training.module import BaseModule
from hepattn.training.run_directory import write_atomically

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """A network in an ONNX file, compared with itself.

    Args:
        path: The file.
        description: The JSON file beside it: names, types and shapes of inputs and outputs, the
            features, the classes, where the weights come from, what was compared.
        difference: Largest difference between an output of the file and of the network, divided
            by the larger of one and the largest output.
        sizes: Batches that were compared: (B, N), or (B,) where the number of tokens is fixed.
        cases: What was special about them, each once.
    """

    path: Path
    description: Path
    difference: float
    sizes: list[tuple[int, ...]]
    cases: list[str]


def export(
    loaded: LoadedRun, path: Path, num_batches: int = 3, probabilities: bool = False
) -> Export:
    """Export the network of a run for any number of events and tokens, and compare the answers.

    They are compared on test events: batches as they come, first events alone, and batches cut to
    half their length. Where the module says that the number of tokens is fixed, it is so in the
    file, and instead of being cut batches are compared with all slots real, with none, with none
    of each kind of object, and with NaN in padding. A file with other answers is not left behind.

    Args:
        loaded: The run. Its module must define ``export_inputs`` or ``network_inputs``.
        path: File to write, ``.onnx``.
        num_batches: Batches of test events to compare.
        probabilities: Whether the file answers with the probabilities of the classes (B, C) in
            place of logits (B, C), or (B, 1) for two classes.

    Raises:
        FileExistsError: If one of the files exists.
        ConfigError: If the answers differ by more than 0.0001, a suffix or number is wrong, or
            probabilities are wanted of something else than the classes of the data.
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
    module = loaded.module
    batches = [module.export_inputs(batch) for batch in islice(loaded.test_batches(), num_batches)]
    if probabilities:
        _require_classes(loaded, batches[0])
    net = Exported(module.exported_net(), probabilities).eval()
    names = _input_names(module, batches[0])
    num_dynamic = 2 if module.tokens_vary else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".onnx.part")
    cases = list(cuts(batches) if module.tokens_vary else paddings(batches, names))
    try:
        session = _write_onnx(net, batches[0], names, part, num_dynamic)
        difference = _compare(net, session, names, cases)
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"the exported network answers otherwise, by {difference:.2g} of the output where "
                f"{TOLERANCE:g} is allowed; an option of the network that ONNX cannot express "
                "exactly, or a cut that falls on another side"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sizes = [tuple(case.inputs[0].shape[:num_dynamic]) for case in cases]
    special = list(dict.fromkeys(case.name for case in cases))
    done = Export(path, description, difference, sizes, special)
    content = _describe(loaded, session, done)
    write_atomically(description, json.dumps(content, indent=2) + "\n")
    return done


class Exported(nn.Module):
    """A network as it is written, by whatever names its arguments go.

    Args:
        net: The network.
        probabilities: Whether the softmax of its logits is written too.
    """

    def __init__(self, net: nn.Module, probabilities: bool = False) -> None:
        super().__init__()
        self.net = net
        self.probabilities = probabilities

    def forward(self, *inputs: Tensor) -> Any:
        """What the network answers, or probabilities (B, C)."""
        output = self.net(*inputs)
        return class_logits(output).softmax(-1) if self.probabilities else output


def _require_extra() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export needs onnx, onnxscript and onnxruntime: pip install 'hepattn[deploy]'"
        ) from error


@torch.no_grad()
def _require_classes(loaded: LoadedRun, inputs: Inputs) -> None:
    output, names = loaded.module.exported_net()(*inputs), classes(loaded)
    if names is None:
        raise ConfigError("--probabilities needs classes, and the data of this run names none")
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape not in {(len(inputs[0]), n) for n in (len(names), 1 if len(names) == 2 else 0)}:
        raise ConfigError(
            f"--probabilities needs one logit for each of the classes {names} an event, or one "
            f"for two; the network answers {shape} to {len(inputs[0])} events"
        )


def _input_names(module: BaseModule, inputs: Inputs) -> tuple[str, ...]:
    names = module.input_names()[: len(inputs)]
    if len(names) < len(inputs):
        raise ConfigError(
            f"{type(module).__name__} names the inputs {names} of its network and gives "
            f"{len(inputs)}; define input_names()"
        )
    return names


def _write_onnx(
    net: Exported, inputs: Inputs, names: Sequence[str], path: Path, num_dynamic: int = 2
) -> Any:
    """Write the file and open it: an ``onnxruntime.InferenceSession``.

    Args:
        net: The network.
        inputs: An example.
        names: Names of the inputs.
        path: Where to write.
        num_dynamic: How many leading dimensions of each input may have any size.
    """
    import onnxruntime

    dims = (torch.export.Dim("events"), torch.export.Dim("tokens", min=2))[:num_dynamic]
    example = tuple(_enlarge(x, num_dynamic) for x in inputs)
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():  # the exporter tells of itself
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            example,
            input_names=list(names),
            output_names=_output_names(net, inputs),
            dynamo=True,
            dynamic_shapes=(tuple(dict(enumerate(dims[: x.dim()])) for x in example),),
            custom_translation_table={torch.ops.aten.hypot.default: _hypot},
            verbose=False,
        )
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for entry in session.get_inputs():  # the exporter tries again with constants and says nothing
        if any(isinstance(size, int) for size in entry.shape[:num_dynamic]):
            raise ConfigError(
                f"the network was exported for inputs {entry.name} of shape {entry.shape} only: it "
                "makes one of these numbers a constant; torch.export.export says where"
            )
    return session


def _hypot(x: Any, y: Any) -> Any:
    """Write down what ONNX has no operator for; physical momenta do not overflow when squared."""
    from onnxscript import opset18 as op

    return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))


@torch.no_grad()
def _output_names(net: Exported, inputs: Inputs) -> list[str]:
    """Fields of what the network returns, ``output`` where it returns one tensor."""
    if net.probabilities:
        return ["probability"]
    leaves, _ = tree_flatten_with_path(net(*inputs))
    named = [(keystr(place).lstrip(".") or "output", x) for place, x in leaves]
    return [name for name, x in named if x is not None]


def _enlarge(x: Tensor, num_dynamic: int) -> Tensor:
    """Give an example two events and two tokens, since one would be taken for a constant."""
    for dim in range(min(x.dim(), num_dynamic)):
        if x.shape[dim] == 1:
            x = torch.cat([x, x], dim)
    return x


@torch.no_grad()
def _compare(net: Exported, session: Any, names: Sequence[str], cases: Sequence[Case]) -> float:
    worst = 0.0
    used = {entry.name for entry in session.get_inputs()}
    for case in cases:
        named = zip(names, case.inputs, strict=True)
        arrays = {name: x.numpy() for name, x in named if name in used}
        found = session.run(None, arrays)
        expected = [x.numpy() for x in tree_leaves(net(*case.inputs)) if x is not None]
        for ours, theirs in zip(expected, found, strict=True):
            worst = float(np.maximum(worst, _difference(ours, theirs)))  # NaN stays
    return worst


def _difference(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> float:
    scale = max(1.0, float(np.abs(ours).max(initial=0)))
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0) / scale)


def _describe(loaded: LoadedRun, session: Any, done: Export) -> dict[str, Any]:
    return {
        "inputs": [_describe_tensor(entry) for entry in session.get_inputs()],
        "outputs": [_describe_tensor(entry) for entry in session.get_outputs()],
        "features": features(loaded),
        "classes": classes(loaded),
        "run": str(loaded.folder),
        "checkpoint": loaded.checkpoint.name,
        "torch": torch.__version__,
        "worst_relative_difference": done.difference,
        "compared_batches": done.sizes,
        "compared_cases": done.cases,
    }


def _describe_tensor(entry: Any) -> dict[str, Any]:
    return {"name": entry.name, "type": entry.type, "shape": entry.shape}


def main(args: Sequence[str] | None = None) -> None:
    """Export runs from the command line.

    Args:
        args: Arguments; those of the process if None.
    """
    parser = run_parser(
        "export",
        "Write the networks of runs as ONNX, for any number of events and tokens.",
        takes_several=True,
    )
    parser.add_argument(
        "--output", type=Path, help="File to write, by default deploy/model.onnx in each run."
    )
    parser.add_argument(
        "--num_batches", type=int, default=3, help="Batches of test events to compare on."
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="Write the probabilities of the classes as the output, in place of logits.",
    )
    with open_runs(parser, args) as (runs, options):
        if options.output and len(options.run) > 1:
            raise ConfigError(f"--output {options.output} is one file for {len(options.run)} runs")
        for loaded in runs:
            print(f"{loaded.folder}, {loaded.checkpoint.name}")
            path = options.output or loaded.folder / "deploy" / "model.onnx"
            done = export(loaded, path, options.num_batches, options.probabilities)
            print(f"compared on {len(done.sizes)} batches: {', '.join(done.cases)}")
            print(f"worst difference, relative to the largest output: {done.difference:.2g}")
            print(f"written to {done.path} and {done.description}")
