"""The weights of another run to start from."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from hepattn.nn.scaling import LogitScaling
from hepattn.training.configs import ConfigError
from hepattn.training.weights import read_weights


class StartWeights(Callback):
    """Start a training from the weights of a checkpoint, and from nothing else of it.

    A training that continues keeps its own. What a calibration of the other run has found does not
    fit the weights after this training: logits are scaled by the identity again.

    Args:
        path: Checkpoint of a run of the same module with the same network, or the file
            ``weights.safetensors`` that ``hepattn weights`` made of one.

    Raises:
        ConfigError: If the weights do not fit.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load them."""
        if trainer.ckpt_path is not None:
            return
        state = read_weights(self.path)
        if not isinstance(state, dict) or "state_dict" not in state:
            raise ConfigError(f"run.weights: {self.path} is no checkpoint of a run")
        try:
            pl_module.load_state_dict(state["state_dict"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"run.weights: {self.path} does not fit the network: {error}"
            ) from error
        for layer in pl_module.modules():
            if isinstance(layer, LogitScaling):
                nn.init.eye_(layer.weight)
                nn.init.zeros_(layer.bias)
        rank_zero_info(f"weights of {self.path}; everything else starts anew")
