"""Files of weights, read safely."""

import errno
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hepattn.data.error import DataError
from hepattn.training.run_directory import write_atomically

WEIGHTS_FILE = "weights.safetensors"
EXTRA_FILE = "extra_state.json"
FORMAT = "hepattn weights 1"
# what torch raises, beside OSError, at a checkpoint that is damaged or holds code
UNREADABLE = (RuntimeError, EOFError, LookupError, pickle.UnpicklingError)
# what a checkpoint holds to go on with the training alone
TRAINING_STATE = ("optimizer_states", "lr_schedulers", "current_model_state", "averaging_state")


def summarise_misfit(error: RuntimeError) -> str:
    """Say in a few words what a strict ``load_state_dict`` complained of.

    Args:
        error: What it raised.
    """
    found = []
    for line in str(error).splitlines()[1:]:
        kind, _, rest = line.strip().partition(": ")
        names = rest.rstrip(". ").split(", ")
        if kind.startswith(("Missing", "Unexpected")):
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            found.append(f"{kind.partition('(')[0].lower()}s {', '.join(names[:2])}{more}")
        elif kind.startswith("size mismatch"):
            found.append(f"{kind}: {rest.rstrip('.')}")
    return "; ".join(found[:3])


def read_weights(path: Path) -> Any:
    """Read a file of tensors and plain types, to the CPU, without running code that it may hold.

    Args:
        path: A checkpoint, or ``weights.safetensors`` with ``extra_state.json`` beside it.

    Raises:
        DataError: If there is no such file or it holds something else.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (*UNREADABLE, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        # torch advises to load without safety, and says elsewhere what it found
        code = [line for line in lines if line.startswith(("Trying to load", "Unsupported"))]
        is_short = isinstance(error, EOFError) or getattr(error, "errno", 0) == errno.EINVAL
        reason = code[0] if code else "it ends too early" if is_short else lines[0]
        raise DataError(f"{path} is no file of weights that loads safely: {reason}") from error


def write_weights(folder: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint as files that no reader has to unpickle.

    Its tensors go into ``weights.safetensors``, everything else into ``extra_state.json``.

    Args:
        folder: Where to write; it exists.
        checkpoint: ``state_dict`` of tensors and plain types, and further plain entries.

    Raises:
        DataError: If an entry is neither a tensor of the state dict nor of plain types.
    """
    rest = {key: value for key, value in checkpoint.items() if key != "state_dict"}
    state = checkpoint["state_dict"]
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    extra = {key: value for key, value in state.items() if key not in tensors}
    content = {"format": FORMAT, "state_dict": extra, "checkpoint": rest}
    try:
        text = json.dumps(plain(content), indent=2)
    except TypeError as error:
        raise DataError(
            f"the checkpoint holds what {EXTRA_FILE} can't: {error}; keep tensors in the state "
            "dict and all else in plain types"
        ) from error
    # tensors that share memory, such as tied weights, are written once for each name
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(copies, folder / WEIGHTS_FILE, {"format": "pt"})
    write_atomically(folder / EXTRA_FILE, text + "\n")


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} is no whole file of safetensors: {error}") from error
    beside = path.with_name(EXTRA_FILE)
    content = read_json(beside)
    if content.get("format") != FORMAT:
        raise DataError.of(
            beside,
            "format",
            found=content.get("format", "none"),
            expected=FORMAT,
            remedy="make the folder again with hepattn weights of this version",
        )
    parts = [content.get(name) for name in ("state_dict", "checkpoint")]
    if not all(isinstance(part, dict) for part in parts):
        raise DataError(f"{beside} is damaged: it lacks state_dict or checkpoint")
    extra, rest = parts
    if both := sorted(extra.keys() & tensors.keys()):
        raise DataError(f"{beside} is of other weights: {both[0]} is in {path.name}, too")
    return {**rest, "state_dict": tensors | extra}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds names and values.

    Raises:
        DataError: If there is no such file or it holds something else.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no file of JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold names and values, not a {type(content).__name__}")
    return content


def plain(value: Any) -> Any:
    """Return dataclasses and mappings as dictionaries and tuples as lists, as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(part) for name, part in asdict(value).items()}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"the key {wrong[0]!r} is no text")
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value
