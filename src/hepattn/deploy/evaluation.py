"""Judge networks that should answer alike: loss, accuracy, differences."""

# B events, N tokens, C classes

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchmetrics.functional.classification import binary_auroc

from hepattn.metrics.tagging import TaggingMetrics
from hepattn.nn.moe import auxiliary_losses
from hepattn.nn.scaling import class_logits
from hepattn.training.module import sum_losses

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Judgement:
    """How well a network does.

    Args:
        loss: Mean over the events of the module's loss.
        accuracy: Share of right answers, of events or of real tokens; None where the module does
            not classify.
        auc: Area under the ROC curve, over several classes the mean of all pairs; None likewise.
        difference: Largest difference of an output to the reference's.
    """

    loss: float
    accuracy: float | None
    auc: float | None
    difference: float


@torch.no_grad()
def judge(
    module: LightningModule,
    network: nn.Module,
    batches: Iterable[Any],
    references: list[Tensor] | None = None,
) -> tuple[Judgement, list[Tensor]]:
    """Evaluate a module with this network in place of its own.

    Accuracy and AUC are those of logits (B, C) for labels (B), or of logits (B, N) for labels
    (B, N) of real tokens.

    Args:
        module: Module of a run, in evaluation mode.
        network: The network.
        batches: Test batches.
        references: Outputs of the reference for all batches; those of this network by default.

    Returns:
        The judgement, and the outputs for all batches.

    Raises:
        ValueError: If there are no batches.
    """
    total, num_events = 0.0, 0
    answers: list[Tensor] = []
    scores: list[tuple[Tensor, Tensor]] = []
    own, module.net = module.net, network
    try:
        for batch in batches:
            outputs = module(batch)
            loss = sum_losses(module.losses(batch, outputs), auxiliary_losses(network))
            total += float(loss) * module.num_events(batch)
            num_events += module.num_events(batch)
            answers += [x.float() for x in tree_leaves(outputs) if _is_floating(x)]
            scores += _scores(batch, outputs)
    finally:
        module.net = own
    if not num_events:
        raise ValueError("there are no test events to compare on; look at the data and its split")
    accuracy, auc = _classification(scores)
    pairs = zip(answers, references or answers, strict=True)
    difference = max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
    return Judgement(total / num_events, accuracy, auc, difference), answers


def forwards(network: nn.Module, inputs: list[Inputs]) -> Callable[[], None]:
    """Make the work of running a network on some batches without gradients."""

    @torch.no_grad()
    def work() -> None:
        for batch in inputs:
            network(*batch)

    return work


def _is_floating(x: object) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _scores(batch: Any, outputs: Any) -> list[tuple[Tensor, Tensor]]:
    """Logits and labels where both are of a kind that is understood, else nothing."""
    label = getattr(batch, "label", None)
    if not (isinstance(outputs, Tensor) and isinstance(label, Tensor)):
        return []
    if outputs.ndim == 2 and label.ndim == 1:
        return [(class_logits(outputs.float()), label)]
    if outputs.shape == label.shape == batch.valid.shape:
        return [(outputs[batch.valid].float(), label[batch.valid])]
    return []


def _classification(scores: list[tuple[Tensor, Tensor]]) -> tuple[float | None, float | None]:
    if not scores:
        return None, None
    logit, label = (torch.cat(parts) for parts in zip(*scores, strict=True))
    if logit.ndim == 1:
        right = (logit > 0) == label.bool()
        return float(right.double().mean()), float(binary_auroc(logit.sigmoid(), label.long()))
    collected = TaggingMetrics(logit.shape[1])
    collected.update(logit, label)
    return collected.compute(), collected.auc()
