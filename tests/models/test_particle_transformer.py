"""ParT gives weaver's answers with weaver's weights, and does not depend on padding or order."""

# B jets, N particles, F features

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from hepattn.deploy.weaver_particle_transformer import convert
from hepattn.models.particle_transformer import ParticleTransformer
from hepattn.nn import particle_encoder
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.attention_maps import record_attention
from hepattn.nn.normalise import Feature
from hepattn.nn.pair_attention import PairAttention
from hepattn.nn.pair_bias import PairOptions
from hepattn.nn.particle_block import BlockOptions
from hepattn.physics.pair_features import PAIR_FEATURES
from models.jet_network_cases import FEATURES, Jets, check_export, random_jets, settle

CALM = BlockOptions(activation_dropout=0.0, dropout=0.0, attention=AttentionOptions())
SMALL = replace(CALM, attention=AttentionOptions(num_heads=2))
PAIRS = PairOptions(hidden=(6, 6))
CASES = {
    "published": {},
    "prenorm": {
        "block": replace(SMALL, style="prenorm", activation="geglu"),
        "pairs": replace(PAIRS, transform="log1p", with_self=False),
    },
    "newer": {
        "block": BlockOptions(
            "prenorm",
            AttentionOptions(num_heads=2, output_gate=True, bias=False),
            norm="RMSNorm",
            qkv_norm="RMSNorm",
            activation="swiglu",
            activation_dropout=0.0,
            dropout=0.0,
            layer_scale=0.1,
        )
    },
    "no pairs": {"pairs": None},
    "first blocks": {"num_biased_blocks": 1},
    "many heads": {
        "block": replace(SMALL, attention=AttentionOptions(num_heads=16)),
        "pairs": PairOptions(features=PAIR_FEATURES, hidden=(6,)),
    },
    "pairs alone": {"attention": partial(PairAttention, num_heads=2)},
}
ALL = pytest.mark.parametrize("name", CASES)


def make(name: str = "published", **options: object) -> ParticleTransformer:
    options = {"block": SMALL, "pairs": PAIRS, "depth": 2} | CASES[name] | options
    net = ParticleTransformer(FEATURES, 3, embedding=(8, 16), **options).eval()
    settle(net)
    return net


@pytest.fixture
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(particle_encoder, "GROUP_PARTICLES", 4)
    monkeypatch.setattr(particle_encoder, "PACKED_PARTICLES", 9)


def test_the_published_network_has_2143486_parameters() -> None:
    net = ParticleTransformer([Feature(f"f{i}") for i in range(17)], 10)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2_143_486
    assert net.encoder.no_weight_decay == ("class_token",)


# Parity with weaver


def make_pair(extra: int = 0, **options: object) -> tuple[ParticleTransformer, nn.Module]:
    """The network and weaver's, in three blocks, with the same weights."""
    peer = pytest.importorskip("weaver.nn.model.ParticleTransformer", reason="needs the extra dev")
    calm = dict.fromkeys(("dropout", "attn_dropout", "activation_dropout"), 0.0)
    theirs = peer.ParticleTransformer(
        17,
        num_classes=10,
        num_layers=3,
        embed_dims=(32, 32),
        pair_embed_dims=(16, 16),
        use_pre_activation_pair=False,
        pair_extra_dim=extra,
        block_params=calm,
        trim=False,
        **options,
    ).eval()
    settle(theirs)
    for name, parameter in theirs.named_parameters():
        if name.endswith(("c_attn", "w_resid", "norm.weight", "norm.bias")):
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    pairs = PairOptions(
        hidden=(16, 16), num_extra=extra, with_self=not options.get("remove_self_pair", False)
    )
    features = [Feature(f"f{i}") for i in range(17)]
    ours = ParticleTransformer(features, 10, (32, 32), depth=3, block=CALM, pairs=pairs).eval()
    missing = ours.load_state_dict(convert(theirs.state_dict()), strict=False).missing_keys
    assert all(name.startswith("normalise.") for name in missing)
    return ours, theirs


def answer_of_weaver(net: nn.Module, jets: Jets, extra: Tensor | None = None) -> Tensor:
    x, vectors, valid = jets
    momentum_first = vectors[..., [1, 2, 3, 0]].mT.contiguous()
    extra = None if extra is None else extra.permute(0, 3, 1, 2).contiguous()
    return net(x.mT.contiguous(), momentum_first, valid.unsqueeze(1), uu=extra)


def wide_jets(*lengths: int) -> Jets:
    _, vectors, valid = random_jets(*lengths)
    return torch.randn(*valid.shape, 17) * valid.unsqueeze(-1), vectors, valid


def real_jets(data_dir: Path, num_jets: int = 16) -> Jets:
    """Jets of JetClass with their four-vectors; the columns are functions of these."""
    uproot = pytest.importorskip("uproot")
    names = ("part_energy", "part_px", "part_py", "part_pz")
    with uproot.open(data_dir / "jetclass/JetClass_small500_p4.root") as file:
        columns = [file["tree"][name].array(entry_stop=num_jets).tolist() for name in names]
    jets = [torch.tensor(np.array(jet, dtype=np.float32)).T for jet in zip(*columns, strict=True)]
    vectors = nn.utils.rnn.pad_sequence(jets, batch_first=True)  # (B, N, 4)
    valid = vectors[..., 0] > 0
    x = (vectors @ torch.randn(4, 17) / 50).tanh()
    return x, vectors, valid


def compare(ours: nn.Module, theirs: nn.Module, jets: Jets, *extra: Tensor) -> None:
    """Compare logits, gradients of inputs and parameters, and buffers."""
    x, vectors, valid = jets
    weight = torch.randn(len(x), 10) / len(x)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    found = ours(inputs[0], vectors, valid, *extra)
    expected = answer_of_weaver(theirs, (inputs[1], vectors, valid), *extra)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for out in (found, expected):
        (out * weight).sum().backward()
    assert_close(inputs[0].grad, inputs[1].grad, atol=1e-5, rtol=1e-5)
    gradients = convert({key: parameter.grad for key, parameter in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[key], atol=1e-5, rtol=1e-4, msg=key)
    buffers = convert(dict(theirs.named_buffers()))
    for key, buffer in ours.named_buffers():
        if key in buffers:
            assert_close(buffer, buffers[key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("lengths", [(20, 20, 20), (20, 11, 1)], ids=["full", "padded"])
def test_logits_and_gradients_are_those_of_weaver(lengths: tuple[int, ...]) -> None:
    compare(*make_pair(), wide_jets(*lengths))


def test_training_on_full_jets_is_that_of_weaver() -> None:
    ours, theirs = make_pair()
    compare(ours.train(), theirs.train(), wide_jets(20, 20, 20, 20))


def test_logits_without_self_pairs_are_those_of_weaver() -> None:
    ours, theirs = make_pair(remove_self_pair=True)
    compare(ours, theirs, wide_jets(12, 7))


def test_logits_with_extra_pair_features_are_those_of_weaver() -> None:
    ours, theirs = make_pair(extra=2)
    jets = wide_jets(12, 7)
    compare(ours, theirs, jets, torch.randn(2, 12, 12, 2))


@pytest.mark.data
@pytest.mark.usefixtures("_small_groups")
@pytest.mark.parametrize("gradients", [True, False])
def test_real_jets_get_the_logits_of_weaver(data_dir: Path, gradients: bool) -> None:
    ours, theirs = make_pair()
    jets = real_jets(data_dir)
    if gradients:
        compare(ours, theirs, jets)
    else:
        with torch.no_grad():
            assert_close(ours(*jets), answer_of_weaver(theirs, jets), atol=1e-5, rtol=1e-5)


@pytest.mark.data
def test_training_on_full_real_jets_is_that_of_weaver(data_dir: Path) -> None:
    x, vectors, valid = real_jets(data_dir)
    length = int(valid.sum(1).min())
    ours, theirs = make_pair()
    jets = tuple(y[:, :length] for y in (x, vectors, valid))
    compare(ours.train(), theirs.train(), jets)


# What every variant promises


@ALL
@pytest.mark.parametrize("gradients", [True, False])
def test_padding_even_of_nan_never_changes_the_logits(name: str, gradients: bool) -> None:
    net, lengths = make(name), (9, 0, 3, 1)
    x, vectors, valid = random_jets(*lengths)
    x, vectors = (y.masked_fill(~valid.unsqueeze(-1), math.nan) for y in (x, vectors))
    with torch.set_grad_enabled(gradients):
        out = net(x, vectors, valid)
        for jet, length in enumerate(lengths):
            alone = (y[jet, None, :length] for y in (x, vectors, valid))
            assert_close(out[jet, None], net(*alone), atol=1e-6, rtol=1e-5)


@ALL
@pytest.mark.usefixtures("_small_groups")
def test_logits_without_gradients_are_those_with(name: str) -> None:
    net, jets = make(name), random_jets(9, 3, 0, 9, 5, 9)
    expected = net(*jets)
    with torch.no_grad():
        assert_close(net(*jets), expected, atol=1e-5, rtol=1e-5)


@ALL
def test_the_order_of_the_particles_never_changes_the_logits(name: str) -> None:
    net, (x, vectors, valid) = make(name), random_jets(12, 12)
    order = torch.randperm(12)
    assert_close(net(x[:, order], vectors[:, order], valid), net(x, vectors, valid))


@ALL
@pytest.mark.usefixtures("_small_groups")
def test_padding_never_changes_training_in_groups_of_jets(name: str) -> None:
    net, jets = make(name).train(), random_jets(9, 0, 3, 7)
    answers = []
    for extra, group in ((0, 4), (5, 1000)):
        particle_encoder.GROUP_PARTICLES = group
        copy = deepcopy(net)
        padded = [F.pad(y, (0, 0, 0, extra), value=math.nan) for y in jets[:2]]
        out = copy(*padded, F.pad(jets[2], (0, extra)))
        out.square().sum().backward()
        answers.append([out, *(p.grad for p in copy.parameters()), *copy.buffers()])
    for found, expected in zip(*answers, strict=True):
        assert_close(found, expected, atol=1e-4, rtol=1e-4)


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_jets_without_particles_have_finite_logits_and_gradients(name: str, training: bool) -> None:
    net = make(name).train(training)
    out = net(*random_jets(4, 0, 2))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_autocast_changes_little() -> None:
    net, jets = make(), random_jets(9, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(*jets)
        out.float().sum().backward()
        with torch.no_grad():
            without_gradients = net(*jets)
    for found in (out, without_gradients):
        assert_close(found.float(), net(*jets), atol=0.1, rtol=0.1)


def test_dropout_and_dropped_paths_are_of_training() -> None:
    block = replace(SMALL, dropout=0.5, drop_path=0.5)
    net, jets = make(block=block), random_jets(9, 4)
    assert_close(net(*jets), net(*jets))
    net.train()
    assert (net(*jets) - net(*jets)).abs().max() > 1e-3
    for part in net.encoder.class_blocks:
        assert part.options.dropout == part.options.drop_path == 0.0


# Options


def test_only_the_first_blocks_have_the_bias() -> None:
    for options, expected in (
        ({"num_biased_blocks": 1}, [True, False]),
        ({}, [True, True]),
        ({"pairs": None}, [False, False]),
    ):
        net, has_bias = make(**options), []
        for block in net.encoder.blocks:
            block.register_forward_pre_hook(lambda _, x: has_bias.append(x[3] is not None))  # noqa: B023
        net(*random_jets(9, 4))
        assert has_bias == expected


def test_trimming_in_training_cuts_long_jets_at_random() -> None:
    net = make(trim=(0.5, 0.5)).train()
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1:3]))
    x, vectors, valid = random_jets(12, 6, 6)
    net(x, vectors, valid)
    kept, lengths = seen[0][0], seen[0][1].sum(1)
    assert lengths.tolist() == [6, 6, 6]
    energies = vectors[0, :, 0].tolist()
    places = [energies.index(energy) for energy in kept[0, :, 0].tolist()]
    assert places == sorted(set(places))
    assert places != list(range(6))
    assert_close(kept[1], vectors[1, :6])


@pytest.mark.usefixtures("_small_groups")
def test_attention_maps_are_those_of_the_batch_in_its_order() -> None:
    net, jets = make(), random_jets(3, 9)
    with torch.no_grad(), record_attention(net, "blocks.0") as maps:
        net(*jets)
    weights = maps["encoder.blocks.0.attention"]
    assert weights.shape == (2, 2, 9, 9)
    expected = jets[2][:, None, :, None].float().expand(-1, 2, -1, 1).squeeze(-1)
    assert_close(weights.sum(-1), expected)
    assert (weights[0, :, :, 3:] == 0).all()
    with torch.no_grad(), record_attention(net, "blocks.0", "weights without bias") as maps:
        net(*jets)
    assert (maps["encoder.blocks.0.attention"][0, :, :, 3:] == 0).all()


def test_options_out_of_range_are_refused() -> None:
    for options, message in (
        ({"depth": 0}, "depth=0"),
        ({"num_biased_blocks": 3}, "num_biased_blocks=3 must be 1 to depth=2"),
        ({"pairs": None, "num_biased_blocks": 1}, "with pairs"),
        ({"trim": (0.9, 0.5)}, "two quantiles"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)
    with pytest.raises(ValueError, match="dropout=1"):
        BlockOptions(dropout=1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_an_exported_network_gives_the_same_answer_for_every_batch(tmp_path: Path) -> None:
    assert check_export(make(), random_jets, tmp_path) == {"x", "vectors", "valid"}
