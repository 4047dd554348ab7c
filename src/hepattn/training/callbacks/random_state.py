"""The state of the random generators in the checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class RandomState(Callback):
    """Continue the random numbers of a run where its checkpoint left them.

    With it a run that resumes from the end of an epoch shuffles and drops out as if it had never
    stopped. The states are those of the first process; the others of a distributed run derive a
    state of their own from it and from their rank.
    """

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the states in plain types."""
        version, words, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
        checkpoint["random_state"] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(words), gauss],
            "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the states before a loader draws the seed of its workers."""
        state = checkpoint.get("random_state")
        if state is None or trainer.state.fn != TrainerFn.FITTING:
            return
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
        if trainer.global_rank:
            torch.manual_seed(int(torch.randint(2**62, ())) + trainer.global_rank)
