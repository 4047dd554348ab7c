"""ParticleNet gives what a loop over particles gives, and what weaver's gives."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.deploy.weaver_particle_net import convert
from hepattn.models.particle_net import ParticleNet
from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.normalise import Feature
from models.jet_network_cases import Jets, make, random_jets, settle

FEATURES = [Feature(f"f{i}") for i in range(15)] + [Feature("part_deta"), Feature("part_dphi")]
WIDTHS = ((8, 8, 8), (12, 12, 12))


def loop(net: ParticleNet, particles: Tensor) -> Tensor:
    """Logits of one jet whose particles (N, F) are all real."""
    scaled = particles.clone()
    scaled[:, 0] = ((scaled[:, 0] - 1.7) * 0.7).clamp(-5, 5)
    x, place = normalise(net.norm, scaled), particles[:, [2, 3]]
    for layer in net.convolutions:
        out = []
        for i in range(len(x)):
            others = [j for j in range(len(x)) if j != i]
            others.sort(key=lambda j: (place[i] - place[j]).square().sum().item())
            near = [x[j] for j in others[: net.num_neighbours]]
            near += [torch.zeros_like(x[i])] * (net.num_neighbours - len(near))
            edges = torch.stack([torch.cat([x[i], other - x[i]]) for other in near])
            for linear, norm in zip(layer.maps, layer.norms, strict=True):
                edges = F.relu(normalise(norm, linear(edges)))
            shortcut = normalise(layer.shortcut_norm, layer.shortcut(x[i]))
            out.append(F.relu(edges.mean(0) + shortcut))
        x = place = torch.stack(out)
    return net.head(F.relu(net.dense(x.mean(0))))


def normalise(norm: MaskedBatchNorm, x: Tensor) -> Tensor:
    return F.batch_norm(
        x.view(-1, x.shape[-1]), norm.running_mean, norm.running_var, norm.weight, norm.bias
    ).view(x.shape)


@pytest.mark.parametrize("length", [1, 3, 5, 11])
def test_logits_are_those_of_a_loop_over_particles_and_neighbours(length: int) -> None:
    net = make("particle_net")  # four neighbours
    x, vectors, valid = random_jets(length, 12)
    assert_close(net(x, vectors, valid)[0], loop(net, x[0, :length]), atol=1e-5, rtol=1e-4)


def test_the_published_network_has_370156_parameters() -> None:
    net = ParticleNet(FEATURES, 10)
    assert sum(parameter.numel() for parameter in net.parameters()) == 370_156


def test_a_feature_list_without_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match="'part_dphi' is not in the feature list"):
        ParticleNet(FEATURES[:-1], 10)


def make_pair(dropout: float = 0.0) -> tuple[ParticleNet, nn.Module]:
    """Our network and weaver's with the same weights."""
    peer = pytest.importorskip("weaver.nn.model.ParticleNet", reason="needs the extra dev")
    theirs = peer.ParticleNet(
        len(FEATURES),
        10,
        conv_params=[(16, widths) for widths in WIDTHS],
        fc_params=[(16, dropout)],
        use_fusion=False,
    )
    settle(theirs)
    ours = ParticleNet(FEATURES, 10, widths=WIDTHS, dense_dim=16, dropout=dropout)
    weights = convert(theirs.state_dict())
    missing = ours.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("normalise.") for name in missing)
    return ours, theirs


def wide_jets(*lengths: int) -> Jets:
    _, vectors, valid = random_jets(*lengths)
    return torch.randn(*valid.shape, len(FEATURES)) * valid.unsqueeze(-1), vectors, valid


def answer_of_weaver(net: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    x = x.transpose(1, 2)
    return net(x[:, -2:].contiguous(), x.contiguous(), valid.unsqueeze(1))


# In jets of fewer than 17 particles weaver's neighbours are padded slots, whose features are zero.
@pytest.mark.parametrize(
    ("lengths", "training"),
    [((40, 40, 40), False), ((40, 25, 18), False), ((40, 9, 16, 1), False), ((40, 40, 40), True)],
    ids=["full", "padded", "small jets", "training"],
)
def test_logits_and_gradients_are_those_of_weaver(lengths: tuple[int, ...], training: bool) -> None:
    ours, theirs = make_pair()
    ours.train(training), theirs.train(training)
    theirs.trimmer.enabled = False  # it trims at random in training
    x, vectors, valid = wide_jets(*lengths)
    weight = torch.randn(len(lengths), 10)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    out = ours(inputs[0], vectors, valid)
    expected = answer_of_weaver(theirs, inputs[1], valid)
    assert_close(out, expected, atol=1e-5, rtol=1e-5)
    for logits in (out, expected):
        (logits * weight).sum().backward()
    gradients = convert({key: parameter.grad for key, parameter in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[key], atol=1e-5, rtol=1e-4)
    real = valid.unsqueeze(-1)
    assert_close(inputs[0].grad * real, inputs[1].grad * real, atol=1e-5, rtol=1e-4)
    if training:
        buffers = dict(ours.named_buffers())
        for key, value in convert(theirs.state_dict()).items():
            if key in buffers:
                assert_close(buffers[key], value, atol=1e-5, rtol=1e-4)


def test_statistics_of_training_are_those_of_real_particles_and_their_edges() -> None:
    ours, theirs = make_pair()
    x, vectors, valid = wide_jets(40, 25)
    ours.train()(x, vectors, valid)
    real = x[valid]
    momentum = ours.norm.momentum
    before = theirs.bn_fts.running_mean
    assert_close(ours.norm.running_mean, torch.lerp(before, real.mean(0), momentum))
    seen = []
    ours.convolutions[0].norms[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ours(x, vectors, valid)
    assert seen[0].shape == (65, 16, 8)
