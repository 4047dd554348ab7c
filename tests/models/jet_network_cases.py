"""Small jet networks and random jets for their tests."""

# B jets, N particles, F features

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.linear_particle_transformer import LinearParticleTransformer
from hepattn.models.lorentz_tagger import LorentzTagger
from hepattn.models.particle_cnn import ParticleConvNetwork
from hepattn.models.particle_flow import ParticleFlowNetwork
from hepattn.models.particle_net import ParticleNet
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from hepattn.physics.four_vector import from_pt_eta_phi_energy

FEATURES = (
    Feature("part_pt_log", shift=1.7, scale=0.7, clip=(-5, 5)),
    Feature("part_charge"),
    Feature("part_deta"),
    Feature("part_dphi"),
)
MAX_PARTICLES = 32  # of the networks that have such a limit
LINEAR = partial(
    LinearParticleTransformer,
    FEATURES,
    3,
    max_particles=MAX_PARTICLES,
    embedding=(8,),
    depth=1,
    num_class_blocks=1,
    block=BlockOptions(attention=AttentionOptions(num_heads=2), dropout=0.0),
)
NETWORKS = {
    "particle_net": partial(
        ParticleNet, FEATURES, 3, num_neighbours=4, widths=((8, 8), (12, 12)), dense_dim=16
    ),
    "particle_flow": partial(ParticleFlowNetwork, FEATURES, 3, (16, 16), (16, 16)),
    "particle_cnn": partial(
        ParticleConvNetwork, FEATURES, 3, dim=8, stages=((8,), (12,)), dense_dim=16
    ),
    "linear": LINEAR,
    "linear with pairs": partial(
        LINEAR,
        block=BlockOptions(style="prenorm", attention=AttentionOptions(num_heads=2), dropout=0.0),
        pairs=PairOptions(features=("kt", "delta_r"), hidden=()),
    ),
    "lorentz": partial(
        LorentzTagger, FEATURES, 3, depth=1, num_vectors=4, num_scalars=8, num_heads=2
    ),
}
ORDERED = ("particle_cnn", "linear", "linear with pairs")  # networks to which the order matters
Jets = tuple[Tensor, Tensor, Tensor]


def make(name: str) -> nn.Module:
    """A network in evaluation mode whose norms have learned something."""
    net = NETWORKS[name]().eval()
    settle(net)
    return net


def settle(net: nn.Module) -> None:
    """Let batch norms be as after a training: with statistics and weights of their own."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | MaskedBatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


def random_jets(*lengths: int) -> Jets:
    """Raw columns (B, N, F), four-vectors (B, N, 4) and which particles are real (B, N)."""
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    pt = torch.rand(valid.shape).mul(5).exp().sort(1, descending=True).values
    place = 0.3 * torch.randn(2, *valid.shape)
    x = torch.stack([pt.log(), torch.randint(-1, 2, valid.shape), *place], -1)
    energy = pt * place[0].cosh() * 1.01
    vectors = from_pt_eta_phi_energy(pt, *place, energy)
    padding = ~valid.unsqueeze(-1)
    return x.masked_fill(padding, 0.0), vectors.masked_fill(padding, 0.0), valid


def check_export(net: nn.Module, draw: Callable[..., Jets], folder: Path) -> set[str]:
    """Compare a network and its ONNX file on jets of several numbers and lengths.

    Args:
        net: The network.
        draw: Draws jets of the given lengths.
        folder: Where the file is written.

    Returns:
        The inputs that the file reads.
    """
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    names = ("x", "vectors", "valid")
    dims = {0: torch.export.Dim("jets"), 1: torch.export.Dim("particles", min=2)}
    path = folder / "net.onnx"
    torch.onnx.export(
        net,
        kwargs=dict(zip(names, draw(9, 5), strict=True)),
        dynamo=True,
        dynamic_shapes=dict.fromkeys(names, dims),
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(path)
    used = {entry.name for entry in session.get_inputs()}
    for lengths in ((9, 5), (3, 2, 0), (30,)):
        jets = draw(*lengths)
        inputs = {key: y.numpy() for key, y in zip(names, jets, strict=True) if key in used}
        (found,) = session.run(None, inputs)
        assert_close(torch.from_numpy(found), net(*jets).detach(), atol=1e-5, rtol=1e-4)
    return used
