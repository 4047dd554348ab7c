"""The attention bias that ParT learns from what two particles have in common (arXiv:2202.03772)."""

# B events, N particles, P pairs of real particles, C features of a pair, H heads

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.ops.distributed import num_processes
from hepattn.ops.pair_network import Layer, Moments, pair_network, train_pair_network
from hepattn.ops.pairs import Pairs, list_pairs, pack_pairs, spread_pairs
from hepattn.physics.pair_features import (
    SYMMETRIC,
    Kinematics,
    PairFeature,
    PairTransform,
    kinematics,
    pair_features,
)


@dataclass(frozen=True)
class PairOptions:
    """What the bias is made of.

    Args:
        features: What is computed of the four-vectors of two particles, see `pair_features`.
        transform: ``log`` with a floor, as published, or ``log1p``.
        num_extra: Number of further features of each pair that are given with the batch; they get a
            network of their own, and the results are added.
        hidden: Features of the hidden layers.
        activate_last: Whether a GELU follows the last layer, too.
        with_self: Whether a particle is a pair with itself; else that bias is zero.

    Raises:
        ValueError: If there are no features at all, or a feature is named twice.
    """

    features: Sequence[PairFeature] = ("kt", "z", "delta_r", "m2")
    transform: PairTransform = "log"
    num_extra: int = 0
    hidden: Sequence[int] = (64, 64, 64)
    activate_last: bool = True
    with_self: bool = True

    def __post_init__(self) -> None:
        if not self.features and not self.num_extra:
            raise ValueError("a pair bias needs features or num_extra; leave pairs out for none")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features={list(self.features)} names one twice; name each once")

    @property
    def is_symmetric(self) -> bool:
        """Whether two particles give one bias, whichever comes first."""
        return SYMMETRIC.issuperset(self.features) and not self.num_extra


class PairNetwork(nn.Sequential):
    """Batch normalisation, then linear map, batch normalisation and GELU, several times.

    On the CPU, inference and the training of one process take the fast paths of
    `hepattn.ops.pair_network`; the modules say what these compute.

    Args:
        num_features: Features of a pair C.
        widths: Features of the layers, the last for the heads.
        activate_last: Whether a GELU follows the last layer, too.
    """

    def __init__(self, num_features: int, widths: Sequence[int], activate_last: bool) -> None:
        layers: list[nn.Module] = [MaskedBatchNorm(num_features)]
        for dim_in, dim in pairwise((num_features, *widths)):
            layers += [nn.Linear(dim_in, dim), MaskedBatchNorm(dim), nn.GELU()]
        super().__init__(*(layers if activate_last else layers[:-1]))
        self.activate_last = activate_last

    def forward(self, x: Tensor) -> Tensor:
        """Map the features (C, P) of all pairs to (H, P); training needs two pairs at least."""
        is_fast = x.device.type == "cpu" and not (
            torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or x.requires_grad
        )
        wants_gradient = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        adapts = self[0].training  # statistics may be frozen while the rest trains
        is_shared = adapts and num_processes() > 1  # statistics are those of all processes
        if not is_fast or is_shared or wants_gradient is not adapts:
            return super().forward(x.T).T
        norms = [layer for layer in self if isinstance(layer, MaskedBatchNorm)]
        linears = [layer for layer in self if isinstance(layer, nn.Linear)]
        nothing = x.new_empty(0)
        layers = [Layer(nothing, nothing, norms[0].weight, norms[0].bias)]
        for linear, norm in zip(linears, norms[1:], strict=True):
            layers.append(Layer(linear.weight, linear.bias, norm.weight, norm.bias))
        if not adapts:
            moments = [Moments(norm.running_mean, norm.running_var) for norm in norms]
            return pair_network(
                x, layers, moments, eps=norms[0].eps, activate_last=self.activate_last
            )
        out, moments = train_pair_network(
            x, layers, eps=norms[0].eps, activate_last=self.activate_last
        )
        for norm, batch in zip(norms, moments, strict=True):
            _remember(norm, batch, x.shape[1])
        return out


class PairInputs(NamedTuple):
    """What the bias of a batch is made from, see `PairBias.forward`."""

    vectors: Tensor
    valid: Tensor
    extra: Tensor | None = None
    paired: Tensor | None = None


class _Checked(NamedTuple):
    """The same, prepared: particles, those with pairs, hidden columns, extra features."""

    particles: Kinematics
    paired: Tensor
    hidden: Tensor
    extra: Tensor | None


class PairBias(nn.Module):
    """Make the score bias of every two particles of an event from their four-vectors.

    Only pairs of real particles are computed, and only one of (i, j) and (j, i) where these are
    alike; so the statistics of training are those of real pairs, each counted once. The
    four-vectors get no gradient.

    Args:
        num_heads: Heads H.
        options: What the bias is made of.
    """

    def __init__(self, num_heads: int, options: PairOptions = PairOptions()) -> None:
        super().__init__()
        self.options = options
        widths = (*options.hidden, num_heads)
        self.network = self.extra_network = None
        if options.features:
            self.network = PairNetwork(len(options.features), widths, options.activate_last)
        if options.num_extra:
            self.extra_network = PairNetwork(options.num_extra, widths, options.activate_last)
        self.num_heads = num_heads

    def forward(
        self,
        vectors: Tensor,
        valid: Tensor,
        extra: Tensor | None = None,
        paired: Tensor | None = None,
    ) -> Tensor:
        """Make the bias.

        Args:
            vectors: Four-vectors (E, px, py, pz) in GeV (B, N, 4).
            valid: True for real particles (B, N).
            extra: Further features of each pair (B, N, N, ``num_extra``).
            paired: True for the real particles whose pairs have a bias (B, N); all by default.

        Returns:
            (B, H, N, N): zero for other pairs, and -inf in the columns of padded particles, except
            in events without any particle.

        Raises:
            ValueError: If the extra features do not fit the options.
        """
        return self.of_groups([PairInputs(vectors, valid, extra, paired)])[0]

    def of_groups(self, groups: Sequence[PairInputs], *, packed: bool = False) -> list[Tensor]:
        """Make the bias of groups of events; the statistics of training are those of all groups.

        Args:
            groups: What `forward` takes, for each group.
            packed: Whether to return the pairs of real particles alone, which come first in each
                event, as `attention` takes them for packed events; without gradients.

        Returns:
            What `forward` returns, of each group; or (H, pairs), event by event and row by row.
        """
        if torch.compiler.is_exporting():
            return [self._dense(self._checked(group)) for group in groups]
        lengths = [group.valid.sum(1) for group in groups]
        groups = [self._checked(group) for group in groups]
        mirrored, with_self = self.options.is_symmetric, self.options.with_self
        pairs = [
            list_pairs(group.paired, is_mirrored=mirrored, with_self=with_self) for group in groups
        ]
        values = self._values(groups, pairs)  # (H, P)
        counts = [len(each.first) for each in pairs]
        if packed:
            parts = values.split(counts, 1)
            return [pack_pairs(*each) for each in zip(parts, pairs, lengths, strict=True)]
        return [
            spread_pairs(part, each, group.hidden)
            for part, each, group in zip(values.split(counts, 1), pairs, groups, strict=True)
        ]

    def _values(self, groups: Sequence[_Checked], pairs: Sequence[Pairs]) -> Tensor:
        """Compute the bias of each pair of all groups (H, P)."""
        num_pairs = sum(len(each.first) for each in pairs)
        is_alone = num_processes() == 1
        if is_alone and num_pairs <= self.training:  # a batch normalisation in training needs two
            # sums of nothing: gradients of zero, which processes that train together wait for
            zero = sum(parameter.flatten()[:0].sum() for parameter in self.parameters())
            return groups[0].particles.pt.new_zeros(self.num_heads, num_pairs) + zero
        values = []
        if self.network is not None:
            parts = [self._features_of(*each) for each in zip(groups, pairs, strict=True)]
            values.append(self.network(_join(parts)))
        if self.extra_network is not None:
            parts = [
                group.extra.flatten(0, 2).index_select(0, each.entries()).T  # (C, P)
                for group, each in zip(groups, pairs, strict=True)
            ]
            values.append(self.extra_network(_join(parts)))
        return values[0] if len(values) == 1 else values[0] + values[1]

    def _features_of(self, group: _Checked, pairs: Pairs) -> Tensor:
        flat = [x.flatten() for x in group.particles]  # (B N)
        first, second = (
            Kinematics(*(x.index_select(0, place) for x in flat))
            for place in (pairs.first, pairs.second)
        )
        return self._features(first, second)

    def _dense(self, group: _Checked) -> Tensor:
        """Compute the bias of all pairs, real or not, in a graph whose shapes are fixed."""
        rows, columns = (Kinematics(*(x.unsqueeze(dim) for x in group.particles)) for dim in (2, 1))
        bias: Tensor | float = 0.0
        B, N = group.paired.shape
        if self.network is not None:
            x = self._features(rows, columns).flatten(1)  # (C, B N N)
            bias = self.network(x).unflatten(1, (B, N, N))  # (H, B, N, N)
        if self.extra_network is not None:
            bias = bias + self.extra_network(group.extra.flatten(0, 2).T).unflatten(1, (B, N, N))
        wanted = group.paired[:, :, None] & group.paired[:, None, :]  # (B, N, N)
        if not self.options.with_self:
            wanted = wanted & ~torch.eye(N, dtype=torch.bool, device=wanted.device)
        bias = bias.transpose(0, 1).masked_fill(~wanted.unsqueeze(1), 0.0)  # (B, H, N, N)
        return bias.masked_fill(group.hidden[:, None, None, :], float("-inf"))

    def _features(self, first: Kinematics, second: Kinematics) -> Tensor:
        with torch.autocast(first.pt.device.type, enabled=False):
            return pair_features(
                first, second, tuple(self.options.features), self.options.transform
            )

    def _checked(self, group: PairInputs) -> _Checked:
        vectors, valid, extra, paired = group
        if (0 if extra is None else extra.shape[-1]) != self.options.num_extra:
            given = None if extra is None else tuple(extra.shape)
            raise ValueError(
                f"extra pair features {given} must be (events, particles, particles, "
                f"num_extra={self.options.num_extra})"
            )
        with torch.autocast(vectors.device.type, enabled=False):
            dtype = torch.promote_types(vectors.dtype, torch.float32)
            vectors = vectors.detach().to(dtype).masked_fill(~valid.unsqueeze(-1), 0.0)
            particles = kinematics(vectors)
        hidden = ~valid & valid.any(1, keepdim=True)  # (B, N)
        paired = valid if paired is None else paired & valid
        return _Checked(particles, paired, hidden, extra)


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


@torch.no_grad()
def _remember(norm: MaskedBatchNorm, batch: Moments, num: int) -> None:
    """Update running moments as a batch normalisation does."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(batch.mean, norm.momentum)
    norm.running_var.lerp_(batch.var * (num / (num - 1)), norm.momentum)
