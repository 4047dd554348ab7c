"""Jets as the metrics see them."""

# J jets, N particles

import numpy as np
import torch
from torch import Tensor

from hepattn.metrics.jets import JetSample
from hepattn.physics.jet_shape import relative_mass, relative_particles


def to_sample(vectors: Tensor, valid: Tensor) -> JetSample:
    """Measure particles relative to the sum of the particles of their jet, in float64.

    Args:
        vectors: Four-vectors in GeV (J, N, 4).
        valid: True for real particles (J, N).
    """
    vectors, valid = vectors.detach().cpu().double(), valid.cpu()
    columns = relative_particles(vectors, valid).columns()
    return JetSample(columns.numpy(), valid.numpy(), relative_mass(vectors, valid).numpy())


def from_columns(particles: np.ndarray, valid: np.ndarray) -> JetSample:
    """Make a sample of columns etarel, phirel and ptrel of particles that add up to a new jet.

    Args:
        particles: Columns (J, N, 3).
        valid: True for real particles (J, N).
    """
    eta, phi, pt = torch.from_numpy(np.asarray(particles, np.float64)).unbind(-1)
    mask = torch.from_numpy(valid)
    pt = pt * mask
    vectors = torch.stack([pt * eta.cosh(), pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)
    return to_sample(vectors, mask)
