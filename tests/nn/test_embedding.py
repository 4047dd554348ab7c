"""Tokens are their scaled columns, embedded, plus the encoding of where they stand."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.embedding import TokenEmbedding
from hepattn.nn.normalise import Feature
from hepattn.nn.positional import Coordinate, SinusoidalEncoding

FEATURES = (Feature("r", scale=0.01), Feature("phi"), Feature("z", scale=0.001))
COORDINATES = (Coordinate("z", scale=0.001), Coordinate("phi", kind="harmonic"))
POSITION = partial(SinusoidalEncoding, coordinates=COORDINATES, alpha=10.0)
VALID = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def test_columns_are_scaled_and_embedded() -> None:
    embedding = TokenEmbedding(FEATURES, 8)
    x = torch.randn(2, 5, 3)
    expected = embedding.embed(x * torch.tensor([0.01, 1.0, 0.001]))
    assert_close(embedding(x, VALID)[VALID], expected[VALID])
    assert embedding.encode(x) is None


def test_the_encoding_of_the_coordinates_is_added() -> None:
    plain, embedding = TokenEmbedding(FEATURES, 8), TokenEmbedding(FEATURES, 8, POSITION)
    embedding.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 3)
    expected = POSITION(8)(x[..., [2, 1]])
    assert_close(embedding.encode(x), expected)
    assert_close((embedding(x, VALID) - plain(x, VALID))[VALID], expected[VALID])


def test_columns_are_found_by_name() -> None:
    embedding = TokenEmbedding(FEATURES, 8)
    assert [embedding.column(name) for name in ("r", "phi", "z")] == [0, 1, 2]
    assert embedding.columns(COORDINATES) == [2, 1]
    assert embedding.columns([]) == []


def test_what_the_features_lack_is_named() -> None:
    embedding = TokenEmbedding(FEATURES, 8)
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        embedding.column("eta")
    with pytest.raises(ValueError, match="'eta' is not in the feature list"):
        TokenEmbedding(FEATURES, 8, partial(SinusoidalEncoding, coordinates=[Coordinate("eta")]))
