"""From raw feature columns to network inputs, inside the network."""

# B events, N tokens, F features, G of them embedded

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "log": lambda x: x.clamp(min=1e-8).log(),
    "log1p": lambda x: x.clamp(min=0).log1p(),
    "sin": torch.sin,
    "cos": torch.cos,
}


@dataclass(frozen=True)
class Feature:
    """One column of the input and how the network scales it.

    The network sees ``clip((transform(x) - shift) * scale)``.

    Args:
        name: Name of the column, as the reader of the data knows it.
        transform: Function applied to the raw value first. ``log`` has a floor of 1e-8 and
            ``log1p`` one of 0.
        shift: Subtracted after the transform.
        scale: Factor applied after the shift.
        clip: Lowest and highest value that the network sees; no bounds by default.
        missing: Raw value for events whose source lacks this column; by default such an
            event is an error.
        embed: Whether the network embeds the column; else only encodings of positions, sorting and
            plots read it. Without x, y and φ among what is embedded, a network that encodes
            differences of φ answers alike for a rotated event.

    Raises:
        ValueError: If ``clip`` is not in ascending order or ``scale`` is zero.
    """

    name: str
    transform: Literal["none", "log", "log1p", "sin", "cos"] = "none"
    shift: float = 0.0
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    missing: float | None = None
    embed: bool = True

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise ValueError(f"feature {self.name}: scale=0 would erase it; leave the feature out")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"feature {self.name}: clip={self.clip} must be (low, high)")


class Normalise(nn.Module):
    """Scale raw columns as the feature list says, in float32 whatever the autocast.

    Coordinates lose up to a millimetre in half precision, so the scaling happens before any
    autocast region. The feature list travels with the weights: a checkpoint that was trained
    on another list is refused.

    Args:
        features: The columns of the input, in order.

    Raises:
        ValueError: If the list is empty, names a feature twice or embeds none.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    inverse: Tensor

    def __init__(self, features: Sequence[Feature]) -> None:
        super().__init__()
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in self.features)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"features must be a list of different names, got {self.names}")
        self.embedded = [i for i, feature in enumerate(self.features) if feature.embed]  # G
        if not self.embedded:
            raise ValueError("no feature is embedded; leave embed=True for some")
        infinity = float("inf")
        clips = [feature.clip or (-infinity, infinity) for feature in self.features]
        self.register_buffer("shift", torch.tensor([f.shift for f in self.features]))
        self.register_buffer("scale", torch.tensor([f.scale for f in self.features]))
        self.register_buffer("low", torch.tensor([low for low, _ in clips]))
        self.register_buffer("high", torch.tensor([high for _, high in clips]))
        self.groups: dict[str, list[int]] = {}
        for index, feature in enumerate(self.features):
            self.groups.setdefault(feature.transform, []).append(index)
        grouped = [index for group in self.groups.values() for index in group]
        self.register_buffer("inverse", torch.tensor(grouped).argsort(), persistent=False)

    def index(self, name: str) -> int:
        """Return the column of a feature.

        Raises:
            ValueError: If the feature list does not hold it.
        """
        if name not in self.names:
            raise ValueError(f"feature {name!r} is not in the feature list {list(self.names)}")
        return self.names.index(name)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Scale the real tokens.

        Args:
            x: Raw columns (B, N, F).
            valid: True for real tokens (B, N).

        Returns:
            (B, N, G) in float32, the features to embed; zero at padded slots.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            columns = [TRANSFORMS[name](x[..., group]) for name, group in self.groups.items()]
            x = torch.cat(columns, -1)[..., self.inverse]  # (B, N, F)
            x = ((x - self.shift) * self.scale).clamp(self.low, self.high)
            return torch.where(valid.unsqueeze(-1), x, 0.0)[..., self.embedded]

    def get_extra_state(self) -> list[dict[str, Any]]:
        """Return the feature list in plain types, for the checkpoint."""
        return [asdict(feature) for feature in self.features]

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        """Compare the checkpoint's feature list with the configured one.

        Raises:
            ValueError: If they differ.
        """
        theirs = [entry["name"] for entry in state]
        if theirs != list(self.names):
            raise ValueError(
                f"the checkpoint was trained on the features {theirs}, the data is described by "
                f"{list(self.names)}; use the feature list of the checkpoint's config"
            )
        for entry, feature in zip(state, self.features, strict=True):
            ours = asdict(feature)
            changed = [
                key
                for key, value in ours.items()
                if key != "missing" and _plain(entry.get(key)) != _plain(value)
            ]
            if changed:
                raise ValueError(
                    f"feature {feature.name}: the checkpoint was trained with {entry}, the config "
                    f"says {ours} ({', '.join(changed)} differ)"
                )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
