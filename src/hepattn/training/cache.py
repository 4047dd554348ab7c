"""Where simulated events are kept between runs."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any


def cache_folder(name: str, version: int, config: Any) -> Path:
    """Folder of the events that a simulation makes with these options.

    It lies in ``HEPATTN_CACHE``, by default in the user's cache folder.

    Args:
        name: What the folder's name begins with.
        version: Version of the simulation, which changes when its events do.
        config: Its options, a dataclass.
    """
    root = Path(os.environ.get("HEPATTN_CACHE", Path.home() / ".cache" / "hepattn"))
    text = json.dumps([version, asdict(config)], sort_keys=True)
    return root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
