"""The mask decoder lets each query see what its options say, whatever pads the batch."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hepattn.models.mask_decoder import MaskDecoder
from hepattn.nn.attention import Attention, AttentionOptions
from hepattn.nn.mask_head import Detections
from hepattn.nn.moe import MixtureOfExperts
from hepattn.nn.offset_bias import ALiBi, OffDiagonalPenalty
from hepattn.nn.positional import Coordinate
from hepattn.nn.queries import Queries
from hepattn.nn.rotary import Rotary

HEADS = AttentionOptions(num_heads=2)
COORDINATES = (Coordinate("phi", kind="harmonic"),)
OPTIONS: dict[str, dict] = {
    "mask": {},
    "full": {"cross_attention": "full"},
    "kmeans": {"cross_attention": "kmeans"},
    "window": {"cross_attention": "full", "window": 4, "wrap": True},
    "open window": {"cross_attention": "full", "window": 4},
    "mask and window": {"window": 6, "wrap": True},
    "kmeans and window": {"cross_attention": "kmeans", "window": 6},
    "by rank": {"cross_attention": "full", "window": 4, "centre": "rank"},
    "token updates": {"update_tokens": True},
    "full token updates": {"update_tokens": True, "cross_attention": "full"},
    "biases": {"offset_bias": ALiBi, "mask_bias": OffDiagonalPenalty, "wrap": True},
    "rotary": {"rotary": partial(Rotary, coordinates=COORDINATES)},
    "masks by position": {
        "rotary": partial(Rotary, coordinates=COORDINATES),
        "mask_by_position": True,
        "attention": AttentionOptions(2, position_init=5.0),
    },
    "gate and laser": {"attention": AttentionOptions(2, output_gate=True, laser=True)},
    "experts": {"dense": MixtureOfExperts, "update_tokens": True},
    "parameters": {"num_parameters": 5, "iou_head": True},
}
ALL = pytest.mark.parametrize("name", OPTIONS)


def make(name: str = "mask", **options: object) -> MaskDecoder:
    torch.manual_seed(0)
    options = {"attention": HEADS, "depth": 2} | OPTIONS[name] | options
    net = MaskDecoder(8, **options).eval()
    for attention in net.modules():
        if isinstance(attention, Attention):  # or all scores are alike, and nothing is tested
            nn.init.normal_(attention.query.weight)
    nn.init.normal_(net.head.mask.contract.weight, std=2.0)  # masks that claim some tokens
    return net


def draw(num_tokens: tuple[int, ...], num_queries: tuple[int, ...]) -> tuple:
    """Random events: queries, tokens, valid, positions, coordinates; noise in padding."""
    torch.manual_seed(1)
    shape, size = len(num_tokens), (max(num_tokens), max(num_queries))
    valid, query_valid = (
        torch.arange(length) < torch.tensor(numbers).unsqueeze(1)
        for length, numbers in zip(size, (num_tokens, num_queries), strict=True)
    )
    tokens, content = (torch.randn(shape, length, 8) for length in size)
    place = torch.rand(shape, size[1]) * torch.tensor(num_tokens).unsqueeze(1)
    queries = Queries(content, query_valid, torch.zeros(shape, size[1], 1), place.long())
    positions = torch.randn_like(content), torch.randn_like(tokens)
    coordinates = torch.randn(shape, size[1], 1), torch.randn(shape, size[0], 1)
    return queries, tokens, valid, positions, coordinates


def event_of(batch: tuple, event: int) -> tuple:
    """One event of a batch, without its padding."""
    queries, tokens, valid, *pairs = batch
    n, m = int(valid[event].sum()), int(queries.valid[event].sum())
    alone = Queries(*(None if f is None else f[event, None, :m] for f in queries))
    pairs = [(query[event, None, :m], token[event, None, :n]) for query, token in pairs]
    return (alone, tokens[event, None, :n], valid[event, None, :n], *pairs)


def assert_same(found: Detections, expected: Detections, **tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, **tolerance)


def crop(answer: Detections, event: int, num_queries: int, num_tokens: int) -> Detections:
    cut = [None if field is None else field[event, None, :num_queries] for field in answer]
    return Detections(*cut)._replace(mask_logit=cut[1][..., :num_tokens])


@ALL
def test_an_event_alone_gets_the_answers_that_it_gets_in_a_padded_batch(name: str) -> None:
    net = make(name)
    num_tokens, num_queries = (11, 5, 8), (3, 6, 1)
    batch = draw(num_tokens, num_queries)
    answers = net(*batch)
    assert len(answers) == 3
    for event, (n, m) in enumerate(zip(num_tokens, num_queries, strict=True)):
        for answer, alone in zip(answers, net(*event_of(batch, event)), strict=True):
            assert_same(crop(answer, event, m, n), alone, atol=1e-4, rtol=1e-4)


@ALL
def test_events_without_tokens_or_queries_leave_the_others_finite(name: str) -> None:
    net = make(name).train()
    batch = draw((6, 0, 4), (2, 0, 3))
    answers = net(*batch)
    assert answers[-1].mask_logit.isfinite().all()
    real = batch[0].valid.unsqueeze(-1) & batch[2].unsqueeze(1)
    (answers[-1].mask_logit * real).sum().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


UNORDERED = [n for n in OPTIONS if "window" not in n and "bias" not in n and n != "by rank"]


@pytest.mark.parametrize("name", UNORDERED)
def test_shuffled_tokens_give_shuffled_masks(name: str) -> None:
    net = make(name)
    queries, tokens, valid, positions, coordinates = draw((9,), (4,))
    order = torch.randperm(9)
    shuffled = net(
        queries,
        tokens[:, order],
        valid,
        (positions[0], positions[1][:, order]),
        (coordinates[0], coordinates[1][:, order]),
    )
    for ours, theirs in zip(
        shuffled, net(queries, tokens, valid, positions, coordinates), strict=True
    ):
        expected = theirs._replace(mask_logit=theirs.mask_logit[..., order])
        assert_same(ours, expected, atol=1e-4, rtol=1e-4)


@ALL
def test_shuffled_queries_give_shuffled_answers(name: str) -> None:
    if name == "by rank":
        pytest.skip("a rank is a place among the queries")
    net = make(name)
    queries, tokens, valid, positions, coordinates = draw((9,), (4,))
    order = torch.randperm(4)
    mixed = Queries(*(None if f is None else f[:, order] for f in queries))
    positions_mixed = (positions[0][:, order], positions[1])
    coordinates_mixed = (coordinates[0][:, order], coordinates[1])
    answers = net(queries, tokens, valid, positions, coordinates)
    for ours, theirs in zip(
        net(mixed, tokens, valid, positions_mixed, coordinates_mixed), answers, strict=True
    ):
        expected = Detections(*(None if f is None else f[:, order] for f in theirs))
        assert_same(ours, expected, atol=1e-4, rtol=1e-4)


def seen_by(net: MaskDecoder, batch: tuple) -> list[Tensor]:
    """Weights of the cross-attention of each layer (B, H, M, N)."""
    weights = []
    for layer in net.layers:
        layer.cross_attention.register_forward_pre_hook(
            lambda module, args, kwargs: weights.append(module.weights(*args, **kwargs)),
            with_kwargs=True,
        )
    net(*batch)
    return weights


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("centre", ["place", "rank"])
def test_local_cross_attention_sees_the_window_around_each_centre(centre: str, wrap: bool) -> None:
    net = make("full", window=4, wrap=wrap, centre=centre)
    batch = draw((11, 7), (3, 5))
    for weights in seen_by(net, batch):
        for event, (n, m) in enumerate(((11, 3), (7, 5))):
            for query in range(m):
                middle = int(batch[0].place[event, query]) if centre == "place" else query * n // m
                distance = [abs(token - middle) for token in range(n)]
                if wrap:
                    distance = [min(d, n - d) for d in distance]
                expected = [d <= 2 for d in distance]
                assert (weights[event, 0, query, :n] > 0).tolist() == expected


@pytest.mark.parametrize("wrap", [False, True])
def test_local_cross_attention_equals_its_dense_mask(wrap: bool) -> None:
    heads = {name: AttentionOptions(2, backend=name) for name in ("local", "sdpa")}
    batch = draw((40, 33), (5, 9))
    local, dense = (
        make("full", window=8, wrap=wrap, attention=options)(*batch) for options in heads.values()
    )
    for ours, theirs in zip(local, dense, strict=True):
        for event, (n, m) in enumerate(((40, 5), (33, 9))):
            assert_same(crop(ours, event, m, n), crop(theirs, event, m, n), atol=1e-4, rtol=1e-4)


def test_mask_attention_sees_what_was_claimed_or_everything() -> None:
    net = make("mask", mask_threshold=0.6)
    nn.init.normal_(net.head.mask.contract.weight, std=8.0)
    batch = draw((7,), (6,))
    answers = net(*batch)
    claimed = [answer.mask_logit.sigmoid() >= 0.6 for answer in answers[:-1]]
    assert any((~mask.any(-1)).any() for mask in claimed)  # some query claims nothing
    assert any(mask.any(-1).any() for mask in claimed)
    for mask, weights in zip(claimed, seen_by(net, batch), strict=True):
        expected = mask | ~mask.any(-1, keepdim=True)
        assert torch.equal((weights > 0).all(1), expected)


def test_each_token_is_in_the_cluster_of_the_query_that_claims_it_most() -> None:
    net = make("kmeans")
    queries, *rest = draw((7,), (4,))
    queries = queries._replace(valid=torch.tensor([[True, True, True, False]]))
    plans = []
    for layer in net.layers:
        layer.cross_attention.register_forward_pre_hook(lambda _, args: plans.append(args[0]))
    answers = net(queries, *rest)
    for answer, plan in zip(answers, plans, strict=False):
        nearest = answer.mask_logit[:, :3].argmax(1)  # of the real queries
        expected = nearest.unsqueeze(1) == torch.arange(4).view(1, 4, 1)
        assert torch.equal(plan.visible().squeeze(1), expected)


def test_tokens_look_back_at_the_queries_that_see_them() -> None:
    net = make("full token updates", window=4)
    batch = draw((9,), (3,))
    weights = []
    net.layers[0].token_attention.register_forward_pre_hook(
        lambda module, args, kwargs: weights.append(module.weights(*args, **kwargs)),
        with_kwargs=True,
    )
    net(*batch)
    place = batch[0].place[0]
    near = (torch.arange(9).unsqueeze(1) - place).abs() <= 2  # (N, M)
    expected = near | ~near.any(-1, keepdim=True)
    assert torch.equal(weights[0][0, 0] > 0, expected)


@pytest.mark.parametrize("window", [None, 4])
def test_mask_bias_is_added_to_the_logits_of_every_answer(window: int | None) -> None:
    batch = draw((9,), (3,))
    penalty = partial(OffDiagonalPenalty, strength=0.5, free=1)
    net = make("full", mask_bias=penalty, window=window)
    biased = net(*batch)
    net.mask_bias = None
    offset = torch.arange(9) - batch[0].place[0].unsqueeze(1)  # (M, N)
    expected = -0.5 * (offset.abs() - 1).clamp(min=0).float()
    for ours, theirs in zip(biased, net(*batch), strict=True):
        assert_close((ours.mask_logit - theirs.mask_logit)[0], expected, atol=1e-5, rtol=1e-4)


def test_positions_can_be_kept_from_the_attention() -> None:
    queries, tokens, valid, positions, coordinates = draw((9,), (3,))
    blind = make(encode_position=False)
    (with_positions, without) = (
        blind(queries, tokens, valid, where, coordinates)[-1] for where in (positions, (None, None))
    )
    assert_same(with_positions, without)
    sighted = make()
    answer = sighted(queries, tokens, valid, positions, coordinates)[-1]
    assert not torch.allclose(answer.object_logit, without.object_logit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0"),
        ({"mask_threshold": 1.0}, "mask_threshold=1.0"),
        ({"wrap": True}, "wrap=True needs a window"),
        ({"attention": AttentionOptions(2, position_init=1.0)}, "needs a rotary encoding"),
        ({"rotary": Rotary}, "needs coordinates"),
        ({"centre": "rank"}, "centre='rank' needs a window"),
        ({"mask_by_position": True}, "mask_by_position=True needs a rotary encoding"),
        ({"cross_attention": "kmeans", "offset_bias": ALiBi}, "no effect"),
    ],
)
def test_options_that_contradict_each_other_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskDecoder(8, **{"attention": HEADS} | options)
