"""The doublet classifier answers for each hit, whatever pads or turns the event."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hepattn.models.doublet_classifier import DoubletClassifier
from hepattn.nn.attention import AttentionOptions
from hepattn.nn.doublets import DoubletFinder
from hepattn.nn.normalise import Feature

FEATURES = (Feature("r", scale=0.01), Feature("phi", embed=False), Feature("z", scale=0.001))


def make() -> DoubletClassifier:
    heads = AttentionOptions(num_heads=2, head_dim=8, position_init=12.0)
    finder = DoubletFinder(num_doublets=6, num_neighbours=8)
    return DoubletClassifier(
        FEATURES, finder, num_attended=4, screen_dim=4, dim=8, attention=heads, width=8, num_gates=2
    )


def random_hits(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    r = 30 + 150 * torch.rand(valid.shape)
    phi = (2 * torch.rand(valid.shape) - 1) * math.pi
    return torch.stack([r, phi, 300 * torch.randn(valid.shape)], -1), valid


def test_padding_even_of_nan_never_changes_a_real_logit() -> None:
    lengths = (11, 0, 1, 6)
    net = make()
    x, valid = random_hits(lengths)
    out = net(x.masked_fill(~valid.unsqueeze(-1), math.nan), valid)
    assert (out[~valid] == 0).all()
    for event, length in enumerate(lengths):
        if length:
            alone = net(x[event, None, :length], valid[event, None, :length])
            assert_close(out[event, :length], alone[0], atol=1e-5, rtol=1e-4)


def test_shuffled_hits_give_shuffled_logits() -> None:
    net = make()
    x, valid = random_hits((12,))
    order = torch.randperm(12)
    assert_close(net(x[:, order], valid), net(x, valid)[:, order], atol=1e-5, rtol=1e-4)


def test_a_rotated_event_gives_the_same_logits() -> None:
    net = make()
    x, valid = random_hits((12,))
    turned = x.clone()
    turned[..., 1] = torch.remainder(x[..., 1] + 2.0 + math.pi, 2 * math.pi) - math.pi
    assert_close(net(turned, valid), net(x, valid), atol=1e-4, rtol=1e-3)


def test_chosen_hits_get_the_logits_that_they_get_among_all() -> None:
    net = make()
    x, valid = random_hits((12, 7))
    chosen = (torch.rand(valid.shape) < 0.4) & valid
    scores = net.score(x, valid, chosen)
    assert_close(scores.hit, net.score(x, valid, valid).hit.masked_fill(~chosen, 0.0))
    assert scores.anchor.shape[1] == chosen.sum(1).max()
    assert scores.valid.any(-1).sum() == chosen.sum()


def test_messages_pass_among_the_chosen_hits() -> None:
    net = make()
    x, valid = random_hits((12, 7))
    chosen = (torch.rand(valid.shape) < 0.6) & valid
    scores = net.score(x, valid, chosen)
    out = net.exchange(scores)
    assert (out[~chosen] == 0).all()
    assert (out != scores.hit)[chosen].all()
    alone = [net.exchange(net.score(x[i, None], valid[i, None], chosen[i, None])) for i in (0, 1)]
    assert_close(out, torch.cat(alone), atol=1e-5, rtol=1e-4)
    first = torch.zeros_like(valid)
    first[:, 0] = True  # no hit is left to hear from
    lonely = net.score(x, valid, first)
    silent = lonely._replace(valid=torch.zeros_like(lonely.valid))
    assert_close(net.exchange(lonely), net.exchange(silent))
    assert not torch.equal(out[chosen], net.exchange(net.score(x, valid, valid))[chosen])


def test_partners_are_places_in_the_order_of_the_input() -> None:
    net = make()
    x, valid = random_hits((12, 7))
    scores = net.score(x, valid, valid)
    apart = x[..., 0].gather(1, scores.partner.flatten(1)).view_as(scores.partner)
    apart = (apart - x[..., 0].gather(1, scores.anchor).unsqueeze(-1)).abs()
    assert (apart[scores.valid] > 3).all()  # partners are on other layers than anchors
    order = torch.randperm(12)
    shuffled = net.score(x[:1, order], valid[:1], valid[:1])
    assert_close(order[shuffled.anchor[0]], scores.anchor[0, :12])
    same = order[shuffled.partner[0]] == scores.partner[0, :12]
    assert (same | ~shuffled.valid[0]).all()


def test_those_that_the_screen_finds_likeliest_attend() -> None:
    net = make()
    x, valid = random_hits((12, 3))
    scores = net.score(x, valid, valid)
    screen = scores.screen.masked_fill(~scores.valid, -math.inf)
    attended = screen.gather(2, scores.attended)
    assert scores.doublet.shape == attended.shape == (2, 12, 4)
    left_out = screen.scatter(2, scores.attended, -math.inf).amax(-1)
    assert (attended.amin(-1) >= left_out)[valid].all()


def test_gradients_are_finite_without_hits_and_without_doublets() -> None:
    net = make()
    x, valid = random_hits((3, 0))
    x[0, :, 0] = 50.0  # all on one layer
    scores = net.score(x, valid, valid)
    assert not scores.valid.any()
    (scores.hit.sum() + scores.doublet.sum() + scores.screen.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_an_exported_network_takes_events_of_any_length(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
    pytest.importorskip("onnxscript", reason="needs the extra deploy")
    net = make().eval()
    sizes = {0: torch.export.Dim("events"), 1: torch.export.Dim("hits", min=2)}
    path = tmp_path / "net.onnx"
    inputs = random_hits((12, 7))
    torch.onnx.export(net, inputs, dynamo=True, dynamic_shapes=(sizes, sizes), verbose=False).save(
        path
    )
    session = onnxruntime.InferenceSession(path)
    inputs = random_hits((9, 20, 3))
    feeds = zip(session.get_inputs(), inputs, strict=True)
    (found,) = session.run(None, {entry.name: x.numpy() for entry, x in feeds})
    assert_close(torch.from_numpy(found), net(*inputs).detach(), atol=1e-5, rtol=1e-4)


def test_gates_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_gates=3 must divide width=8"):
        DoubletClassifier(FEATURES, width=8, num_gates=3)
