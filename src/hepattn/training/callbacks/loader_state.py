"""Where the training loader of a checkpoint stopped."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class LoaderState(Callback):
    """Let the loader go on with the batch that comes next after the checkpoint.

    Lightning saves the state of a loader that has ``state_dict``. It restores it when it asks for
    the loader, but only if that happens after the checkpoint was read: a schedule that wants to
    know the number of steps comes before.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the state."""
        if trainer.state.fn == TrainerFn.FITTING:
            loop = checkpoint.get("loops", {}).get("fit_loop", {})
            self._states = loop.get("state_dict", {}).get("combined_loader", [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore it, before the first epoch begins."""
        loader = trainer.train_dataloader
        if len(self._states) == 1 and hasattr(loader, "load_state_dict"):
            loader.load_state_dict(self._states[0])
        self._states = []
