"""Published ParticleNet weights answer here as they do in weaver."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.data.jets.dataset import JetDataset
from hepattn.data.jets.input import JetInput
from hepattn.data.jets.open import open_jets
from hepattn.deploy.weaver_particle_net import convert
from hepattn.experiments.jets.feature_lists import feature_list
from hepattn.models.particle_net import ParticleNet
from hepattn.training.configs import ConfigError

FILES = {"kin": "JetClass_small500_p4.root", "full": "JetClass_top200_full.root"}
WIDTHS = ((64, 64, 64), (128, 128, 128), (256, 256, 256))


def read(data_dir: Path, kind: str) -> dict[str, Tensor]:
    file = data_dir / "weights" / f"ParticleNet_{kind}.pt"
    return torch.load(file, map_location="cpu", weights_only=True)


def make_pair(data_dir: Path, kind: str) -> tuple[ParticleNet, nn.Module]:
    peer = pytest.importorskip("weaver.nn.model.ParticleNet", reason="needs the extra dev")
    state, features = read(data_dir, kind), feature_list(kind)
    ours = ParticleNet(features, 10).eval()
    found = ours.load_state_dict(convert(state), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith("normalise.") for name in found.missing_keys)
    theirs = peer.ParticleNet(
        len(features),
        10,
        conv_params=[(16, widths) for widths in WIDTHS],
        fc_params=[(256, 0.1)],
        use_fusion=False,
    ).eval()
    theirs.load_state_dict({key.removeprefix("mod."): value for key, value in state.items()})
    return ours, theirs


def read_jets(data_dir: Path, net: ParticleNet, kind: str) -> JetDataset:
    source = open_jets(data_dir / "jetclass" / FILES[kind])
    return JetDataset(source, JetInput(net.normalise.features))


def answer_of_weaver(net: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    """Logits for scaled features x (B, N, F), the last two of which are not scaled."""
    x = x.transpose(1, 2)
    return net(x[:, -2:].contiguous(), x.contiguous(), valid.unsqueeze(1))


@pytest.mark.data
@pytest.mark.parametrize(("kind", "least_accuracy"), [("kin", 0.6), ("full", 0.9)])
def test_scores_of_real_jets_are_those_of_weaver(
    kind: str, least_accuracy: float, data_dir: Path
) -> None:
    ours, theirs = make_pair(data_dir, kind)
    jets = read_jets(data_dir, ours, kind)
    order = sorted(range(len(jets)), key=jets.lengths.__getitem__)
    # All jets of fewer than 17 particles, where neighbours are missing, and one in twelve others.
    num_small = sum(length < 17 for length in jets.lengths)
    others = order[num_small::12]
    # Weaver needs a jet of 17 particles or more in each batch.
    batches = [order[: num_small + 1], *(others[i : i + 12] for i in range(0, len(others), 12))]
    correct = []
    with torch.no_grad():
        for batch in map(jets.__getitems__, batches):
            scores = ours(batch.particles, batch.vectors, batch.valid).softmax(-1)
            x = ours.normalise(batch.particles, batch.valid)
            expected = answer_of_weaver(theirs, x, batch.valid).softmax(-1)
            assert_close(scores, expected, atol=1e-5, rtol=1e-4)
            correct.append(scores.argmax(-1) == batch.label)
    accuracy = torch.cat(correct).float().mean().item()
    print(f"{kind}: accuracy {accuracy:.3f} on {len(torch.cat(correct))} jets")
    assert accuracy > least_accuracy


@pytest.mark.data
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_real_jets_are_those_of_weaver(training: bool, data_dir: Path) -> None:
    ours, theirs = make_pair(data_dir, "full")
    ours.normalise.register_forward_hook(lambda module, inputs, x: x.double())
    for net in (ours.double(), theirs.double()):
        net.train(training)
        for module in net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    jets = read_jets(data_dir, ours, "full")
    long = [jet for jet, length in enumerate(jets.lengths) if length >= 32][:6]
    batch = jets.__getitems__(long)
    # Weaver's norms see padding in training, ours do not: jets cut to the same length have none.
    raw, valid = batch.particles[:, :32].double(), batch.valid[:, :32]
    assert valid.all()
    x = ours.normalise(raw, valid)
    out = ours(raw, batch.vectors[:, :32], valid)
    expected = answer_of_weaver(theirs, x.requires_grad_(), valid)  # tracks gradients only so
    assert_close(out, expected)
    for logits in (out, expected):
        F.cross_entropy(logits, batch.label).backward()
    gradients = convert({key: parameter.grad for key, parameter in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[key])


@pytest.mark.data
@pytest.mark.parametrize("kind", ["kin", "kinpid", "full"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.mod."])
def test_every_published_weight_finds_its_place(kind: str, prefix: str, data_dir: Path) -> None:
    state = {
        prefix + key.removeprefix("mod."): value for key, value in read(data_dir, kind).items()
    }
    converted = convert(state)
    net = ParticleNet(feature_list(kind), 10)
    own = {key for key in net.state_dict() if not key.startswith("normalise.")}
    assert set(converted) == own
    assert len(converted) == len(state)


def test_weights_of_other_variants_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'fusion_block\.0\.weight' is no weight of a Part"):
        convert({"mod.fusion_block.0.weight": torch.zeros(2, 2, 1)})
