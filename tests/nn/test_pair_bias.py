"""The pairwise bias against a loop over pairs, and what it does not depend on."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.batch_norm import MaskedBatchNorm
from hepattn.nn.pair_bias import PairBias, PairInputs, PairOptions
from hepattn.physics.pair_features import PAIR_FEATURES, kinematics, pair_features

VALID = torch.arange(5) < torch.tensor([5, 0, 1, 3])[:, None]
CASES = {
    "published": PairOptions(hidden=(6, 6)),
    "not symmetric": PairOptions(features=PAIR_FEATURES, hidden=(6, 6), activate_last=False),
    "no self pairs": PairOptions(hidden=(6,), with_self=False, transform="log1p"),
    "extra": PairOptions(hidden=(6,), num_extra=2),
    "extra alone": PairOptions(features=(), hidden=(6,), num_extra=2),
}
ALL = pytest.mark.parametrize("options", CASES.values(), ids=CASES)


def make(options: PairOptions) -> PairBias:
    bias = PairBias(3, options)
    for name, tensor in [*bias.named_parameters(), *bias.named_buffers()]:
        if tensor.dim() == 1:
            tensor.data.add_(0.3 * torch.rand_like(tensor) + name.endswith("var"))
    return bias.eval()


def draw(options: PairOptions) -> PairInputs:
    momenta = 10 * torch.randn(4, 5, 3)
    energy = (momenta.square().sum(-1, keepdim=True) + 1).sqrt()
    vectors = torch.cat([energy, momenta], -1).masked_fill(~VALID.unsqueeze(-1), float("nan"))
    extra = torch.randn(4, 5, 5, options.num_extra) if options.num_extra else None
    return PairInputs(vectors, VALID, extra)


def loop(bias: PairBias, inputs: PairInputs, paired: Tensor) -> Tensor:
    expected = torch.zeros(4, 3, 5, 5)
    options = bias.options
    for event, i, j in (paired[:, :, None] & paired[:, None]).nonzero().tolist():
        if i == j and not options.with_self:
            continue
        pair = torch.zeros(1, 3)
        if options.features:
            a, b = (kinematics(inputs.vectors[event, k]) for k in (i, j))
            features = pair_features(a, b, tuple(options.features), options.transform)
            for layer in bias.network:
                features = layer(features.view(1, -1))
            pair = pair + features
        if options.num_extra:
            features = inputs.extra[event, i, j].view(1, -1)
            for layer in bias.extra_network:
                features = layer(features)
            pair = pair + features
        expected[event, :, i, j] = pair[0]
    hidden = ~VALID & VALID.any(1, keepdim=True)
    return expected.masked_fill(hidden[:, None, None], float("-inf"))


@ALL
def test_bias_is_that_of_a_loop_over_pairs(options: PairOptions) -> None:
    bias, inputs = make(options), draw(options)
    expected = loop(bias, inputs, VALID)
    assert_close(bias(*inputs), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert_close(bias(*inputs), expected, atol=1e-5, rtol=1e-5)


@ALL
def test_only_chosen_particles_have_a_bias(options: PairOptions) -> None:
    bias, inputs = make(options), draw(options)
    paired = VALID & (torch.rand(4, 5) < 0.6)
    expected = loop(bias, inputs, paired)
    assert_close(bias(*inputs._replace(paired=paired)), expected, atol=1e-5, rtol=1e-5)


@ALL
def test_packed_bias_is_that_of_the_real_pairs(options: PairOptions) -> None:
    bias, inputs = make(options), draw(options)
    inputs = inputs._replace(paired=VALID & (torch.rand(4, 5) < 0.8))
    with torch.no_grad():
        expected, found = bias(*inputs), bias.of_groups([inputs], packed=True)[0]
    real = [m[:, :n, :n].flatten(1) for m, n in zip(expected, VALID.sum(1).tolist(), strict=True)]
    assert_close(found, torch.cat(real, 1), atol=1e-5, rtol=1e-5)


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_groups_of_events_are_those_of_the_whole_batch(
    options: PairOptions, training: bool
) -> None:
    inputs = draw(options)
    groups = [
        PairInputs(*(None if x is None else x[part] for x in inputs))
        for part in (slice(0, 1), slice(1, 4))
    ]
    whole, in_parts = (make(options).train(training) for _ in range(2))
    in_parts.load_state_dict(whole.state_dict())
    expected, found = whole(*inputs), torch.cat(in_parts.of_groups(groups))
    assert_close(found, expected)
    outs = [x.masked_fill(x.isinf(), 0.0).square().sum() for x in (found, expected)]
    for out in outs:
        out.backward()
    for a, b in zip(in_parts.parameters(), whole.parameters(), strict=True):
        assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)
    for a, b in zip(in_parts.buffers(), whole.buffers(), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("lengths", [[0, 0], [1, 0]])
def test_training_without_two_pairs_leaves_the_statistics(lengths: list[int]) -> None:
    bias = make(CASES["published"]).train()
    before = {key: x.clone() for key, x in bias.state_dict().items()}
    valid = torch.arange(2) < torch.tensor(lengths)[:, None]
    assert (bias(torch.rand(2, 2, 4), valid)[:, :, :, 0] == 0).all()
    assert_close(bias.state_dict(), before)


@pytest.mark.parametrize("name", ["published", "extra"])
@pytest.mark.parametrize("lengths", [[0, 0], [1, 0]])
def test_training_without_two_pairs_gives_every_weight_a_gradient_of_zero(
    name: str, lengths: list[int]
) -> None:
    bias = make(CASES[name]).train()
    extra = torch.rand(2, 2, 2, bias.options.num_extra) if bias.options.num_extra else None
    valid = torch.arange(2) < torch.tensor(lengths)[:, None]
    bias(torch.rand(2, 2, 4), valid, extra)[:, :, :, 0].sum().backward()
    assert all((parameter.grad == 0).all() for parameter in bias.parameters())


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="leave pairs out"):
        PairOptions(features=())
    with pytest.raises(ValueError, match="names one twice"):
        PairOptions(features=("kt", "kt"))
    with pytest.raises(ValueError, match=r"None must be .* num_extra=2"):
        make(CASES["extra"])(*draw(CASES["published"]))


def test_frozen_statistics_are_used_and_kept_while_the_weights_train() -> None:
    options = CASES["published"]
    bias, inputs = make(options), draw(options)
    buffers = {name: buffer.clone() for name, buffer in bias.named_buffers()}
    with torch.no_grad():
        expected = bias(*inputs)
    for layer in bias.train().modules():
        if isinstance(layer, MaskedBatchNorm):
            layer.eval()
    out = bias(*inputs)
    assert_close(out, expected, atol=1e-5, rtol=1e-5)
    out.masked_fill(out.isinf(), 0.0).sum().backward()
    assert all((p.grad != 0).any() for p in bias.parameters())
    assert_close(dict(bias.named_buffers()), buffers)
