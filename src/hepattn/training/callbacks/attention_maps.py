"""Pictures of what attention layers attend to while they learn."""

# B events, H heads, M queries, N keys

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from torch import Tensor

from hepattn.nn.attention_maps import record_attention


class AttentionMaps(Callback):
    """Draw the attention weights of the first validation event after each validation.

    ``attention/step_<number>.png`` in the run directory has a panel for each layer: queries down,
    keys across, in the order in which the layer gets them, averaged over the heads.

    Args:
        layers: Part of the names of the layers to draw, such as ``cross_attention``; all by
            default.
        max_tokens: Largest number of tokens of a batch, padding included: the weights of every
            pair, head and layer are held in memory. Nothing is drawn, with a warning, beyond it.

    Raises:
        ValueError: If ``max_tokens`` is not positive.
    """

    def __init__(self, layers: str = "", max_tokens: int = 2000) -> None:
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1")
        self.layers = layers
        self.max_tokens = max_tokens
        self._recording = ExitStack()
        self._weights: dict[str, Tensor] = {}

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Watch the first batch."""
        skip = trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero
        if batch_idx or skip:
            return
        num_tokens = batch.valid.shape[1]
        if num_tokens > self.max_tokens:
            rank_zero_warn(
                f"no attention maps of {num_tokens} tokens: more than max_tokens={self.max_tokens}"
            )
            return
        self._weights = self._recording.enter_context(record_attention(pl_module, self.layers))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw what was seen."""
        self._recording.close()
        if self._weights:
            path = Path(trainer.default_root_dir) / "attention" / f"step_{trainer.global_step}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(self._weights).savefig(path, dpi=120)
            self._weights = {}


def _draw(weights: dict[str, Tensor]) -> Figure:
    figure = Figure(figsize=(4 * len(weights), 4), layout="constrained")
    panels = figure.subplots(1, len(weights), squeeze=False)[0]
    for axis, (name, weight) in zip(panels, weights.items(), strict=True):
        shares = weight[0].float().mean(0).cpu()  # (M, N)
        axis.imshow(shares.numpy(), aspect="auto", cmap="Blues", vmin=0)
        axis.set_title(name, fontsize="small")
        axis.set(xlabel="key", ylabel="query")
    return figure
