"""From raw feature columns to network inputs, inside the network."""

# B events, N tokens, F features, G of them embedded

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hepattn.nn.column_summary import ColumnSummary
from hepattn.nn.fitted_scaling import (
    FittedScaling,
    LogitCurve,
    PowerCurve,
    QuantileCurve,
    fit_shift_and_scale,
)

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "log": lambda x: x.clamp(min=1e-8).log(),
    "log1p": lambda x: x.clamp(min=0).log1p(),
    "sin": torch.sin,
    "cos": torch.cos,
}
CURVES: dict[str, Callable[[int], PowerCurve | QuantileCurve | LogitCurve]] = {
    "power": PowerCurve,
    "quantile": QuantileCurve,
    "logit": LogitCurve,
    "standard_logit": partial(LogitCurve, is_standard=True),
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
        fitted: Take the scaling from the training split instead of from ``shift`` and ``scale``:
            ``standard``, ``robust`` (median and quartiles), ``minmax`` (0 to 1), ``maxabs``,
            ``power`` (Yeo-Johnson, then standard), ``quantile`` (to a normal distribution),
            ``logit`` (minmax, then ln(u / (1 - u))) or ``standard_logit`` (then standard).
        categories: The values of a categorical column. An embedding of categories learns a vector
            for each, and one for all other values; elsewhere the network sees the value itself.

    Raises:
        ValueError: If ``clip`` is not in ascending order, ``scale`` is zero, options exclude each
            other, or ``categories`` is empty or names a value twice.
    """

    name: str
    transform: Literal["none", "log", "log1p", "sin", "cos"] = "none"
    shift: float = 0.0
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    missing: float | None = None
    embed: bool = True
    fitted: FittedScaling | None = None
    categories: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise ValueError(f"feature {self.name}: scale=0 would erase it; leave the feature out")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ValueError(f"feature {self.name}: clip={self.clip} must be (low, high)")
        if self.fitted is not None and (self.shift, self.scale) != (0, 1):
            raise ValueError(
                f"feature {self.name}: fitted={self.fitted!r} finds shift and scale; leave out "
                f"shift={self.shift} and scale={self.scale}"
            )
        if self.categories is not None:
            self._check_categories(self.categories)

    def _check_categories(self, categories: tuple[int, ...]) -> None:
        if not categories or len(set(categories)) < len(categories):
            raise ValueError(
                f"feature {self.name}: categories={categories} must be one or more different values"
            )
        scaling = (self.transform, self.shift, self.scale, self.clip, self.fitted)
        if scaling != ("none", 0, 1, None, None):
            raise ValueError(
                f"feature {self.name}: categories are not scaled; leave out transform, shift, "
                "scale, clip and fitted"
            )


class Normalise(nn.Module):
    """Scale raw columns as the feature list says, in float32 whatever the autocast.

    Coordinates lose up to a millimetre in half precision, so the scaling happens before any
    autocast region. The feature list travels with the weights: a checkpoint that was trained
    on another list is refused. So do the numbers of fitted scalings.

    A value of a real token that is not a number stays none, so that it shows; an infinite one is
    like any other beyond the range of ``clip`` or of a fitted curve.

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
        infinity, nan = float("inf"), float("nan")
        clips = [feature.clip or (-infinity, infinity) for feature in self.features]
        shifts = [f.shift if f.fitted is None else nan for f in self.features]
        scales = [f.scale if f.fitted is None else nan for f in self.features]
        self.register_buffer("shift", torch.tensor(shifts))
        self.register_buffer("scale", torch.tensor(scales))
        self.register_buffer("low", torch.tensor([low for low, _ in clips]))
        self.register_buffer("high", torch.tensor([high for _, high in clips]))
        self.groups: dict[str, list[int]] = {}
        for index, feature in enumerate(self.features):
            self.groups.setdefault(feature.transform, []).append(index)
        grouped = [index for group in self.groups.values() for index in group]
        self.register_buffer("inverse", torch.tensor(grouped).argsort(), persistent=False)
        self.curved = {
            name: [i for i, feature in enumerate(self.features) if feature.fitted == name]
            for name in CURVES
        }
        self.curves = nn.ModuleDict(
            {name: CURVES[name](len(group)) for name, group in self.curved.items() if group}
        )
        bent = [index for group in self.curved.values() for index in group]
        self.straight = [index for index in range(len(self.features)) if index not in bent]
        order = torch.tensor([*self.straight, *bent]).argsort()
        self.register_buffer("curved_inverse", order, persistent=False)
        self.needs_fit = any(feature.fitted is not None for feature in self.features)
        self.is_fitted = not self.needs_fit

    def index(self, name: str) -> int:
        """Return the column of a feature.

        Raises:
            ValueError: If the feature list does not hold it.
        """
        if name not in self.names:
            raise ValueError(f"feature {name!r} is not in the feature list {list(self.names)}")
        return self.names.index(name)

    @torch.no_grad()
    def fit(self, summary: ColumnSummary) -> None:
        """Take the numbers of fitted scalings from the training split.

        Args:
            summary: Statistics of all columns F, in order, after their transforms.

        Raises:
            ValueError: If they are those of another number of columns.
        """
        F = len(self.features)
        if summary.quantiles.shape[1] != F:
            raise ValueError(
                f"the summary has {summary.quantiles.shape[1]} columns, the feature list has {F}: "
                f"{list(self.names)}"
            )
        quantiles = summary.quantiles.detach().cpu().double()
        for index, feature in enumerate(self.features):
            if feature.fitted is not None:
                mean, std = summary.mean[index].item(), summary.std[index].item()
                column = quantiles[:, index].nan_to_num()
                shift, scale = fit_shift_and_scale(feature.fitted, mean, std, column)
                self.shift[index], self.scale[index] = shift, scale
        for name, curve in self.curves.items():
            group = self.curved[name]
            grid = quantiles[:, group].nan_to_num()
            curve.fit((grid - self.shift[group].cpu()) * self.scale[group].cpu())
        self.is_fitted = True

    def rescale(self, x: Tensor) -> Tensor:
        """Shift, scale, bend and clip columns (..., F) that have been transformed.

        Raises:
            RuntimeError: If a scaling is still to be fitted.
        """
        if not self.is_fitted:
            fitted = [feature.name for feature in self.features if feature.fitted is not None]
            raise RuntimeError(
                f"the scaling of {fitted} is that of the training split, which this network has "
                "not seen; call fit_inputs(network, summaries) or load a checkpoint first"
            )
        x = (x - self.shift) * self.scale
        if self.curves:
            parts = [x[..., self.straight]] if self.straight else []
            parts += [curve(x[..., self.curved[name]]) for name, curve in self.curves.items()]
            x = torch.cat(parts, -1)[..., self.curved_inverse]
        return x.clamp(self.low, self.high)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scale the real tokens.

        Args:
            x: Raw columns (B, N, F), or (B, F) without ``valid``.
            valid: True for real tokens (B, N); None where all of them are.

        Returns:
            (B, N, G) or (B, G) in float32, the features to embed; zero at padded slots.

        Raises:
            RuntimeError: If a scaling is still to be fitted.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            columns = [TRANSFORMS[name](x[..., group]) for name, group in self.groups.items()]
            x = torch.cat(columns, -1)[..., self.inverse]  # (B, N, F)
            x = self.rescale(x)
            if valid is not None:
                x = torch.where(valid.unsqueeze(-1), x, 0.0)
            return x[..., self.embedded]

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
        self.is_fitted = not self.shift.isnan().any().item()  # the buffers are loaded before this


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
