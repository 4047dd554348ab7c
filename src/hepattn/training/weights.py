"""Files of weights, read safely."""

import pickle
from pathlib import Path
from typing import Any

import torch

from hepattn.data.error import DataError


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
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} is no file of weights that loads safely: {reason}") from error
