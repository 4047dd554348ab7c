"""Start from the encoder of another run."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from hepattn.experiments.xec.encoder import XecEncoder
from hepattn.training.configs import ConfigError
from hepattn.training.weights import read_weights

PREFIX = "net.encoder."


def load_encoder(encoder: XecEncoder, path: str) -> None:
    """Take the weights of the encoder of a run's checkpoint, such as that of an autoencoder.

    Args:
        encoder: The encoder.
        path: The checkpoint.

    Raises:
        ConfigError: If it holds no such encoder, or one of another size, another scaling of the
            sensors or another detector.
        DataError: If it cannot be read.
    """
    state = read_weights(Path(path))
    weights = state.get("state_dict", {}) if isinstance(state, dict) else {}
    own = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    if not own:
        raise ConfigError(f"model.encoder_ckpt={path} holds no encoder of this detector")
    try:
        encoder.load_state_dict(own)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model.encoder_ckpt={path} does not fit model.encoder: {error}"
        ) from error
    rank_zero_info(f"encoder of {path}; everything else starts anew")
