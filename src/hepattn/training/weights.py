"""Files of weights, read safely."""

import errno
import pickle
from pathlib import Path
from typing import Any

import torch

from hepattn.data.error import DataError


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

    Raises:
        DataError: If there is no such file or it holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        # torch advises to load without safety, and says elsewhere what it found
        code = [line for line in lines if line.startswith(("Trying to load", "Unsupported"))]
        is_short = isinstance(error, EOFError) or getattr(error, "errno", 0) == errno.EINVAL
        reason = code[0] if code else "it ends too early" if is_short else lines[0]
        raise DataError(f"{path} is no file of weights that loads safely: {reason}") from error
