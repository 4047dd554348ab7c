"""The peer of the encoder's benchmark is what the description says."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.testing import assert_close

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def literal(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return import_module("xec_literal")


def count(part: nn.Module | nn.Parameter) -> int:
    parameters = [part] if isinstance(part, nn.Parameter) else part.parameters()
    return sum(parameter.numel() for parameter in parameters)


def test_it_has_the_published_number_of_parameters(literal: ModuleType) -> None:
    with torch.device("meta"):
        encoder = literal.LiteralEncoder()
    millions = {
        "encoder": count(encoder) / 1e6,
        "fusion": count(encoder.fusion) / 1e6,
        "hex": count(encoder.hex_backbone) / 1e6,
        "images": count(encoder.backbone) / 1e6,
    }
    expected = {"encoder": 25.74, "fusion": 25.19, "hex": 0.404, "images": 0.141}
    digits = {"encoder": 2, "fusion": 2, "hex": 3, "images": 3}
    assert {name: round(value, digits[name]) for name, value in millions.items()} == expected


def test_six_faces_become_six_tokens(literal: ModuleType) -> None:
    shapes = ((2, 93, 44), (2, 24, 6), (2, 24, 6), (2, 45, 72), (73, 2), (73, 2))
    faces = literal.Faces(*(torch.randn(2, *shape) for shape in shapes))
    encoder = literal.LiteralEncoder(dim=64, depth=1, num_heads=4)
    tokens = encoder(faces)
    assert tokens.shape == (2, 6, 64)
    tokens.sum().backward()
    used = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert len(used) == len(list(encoder.parameters()))


def test_hexagonal_faces_have_366_pairs_of_neighbours(literal: ModuleType) -> None:
    source, target, direction = literal.hex_edges()
    assert (direction > 0).sum() == 366
    rows = torch.tensor([row for row, n in enumerate(literal.HEX_ROWS) for _ in range(n)])
    columns = torch.cat([torch.arange(n) - (n - 1) / 2 for n in literal.HEX_ROWS])
    places = torch.stack([6.91 * rows, 6.12 * columns], 1)  # cm
    near = torch.cdist(places, places) < 8
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert {tuple(pair) for pair in near.nonzero().tolist()} == pairs


def test_the_fine_grid_keeps_all_photons_outside_the_centre(literal: ModuleType) -> None:
    coarse, centre = torch.rand(2, 2, 9, 24), torch.rand(2, 2, 5, 6)
    coarse[:, :, 3:6, 10:14] = 0  # what the centre replaces
    grid = literal.fine_grid(coarse, centre)
    assert grid.shape == (2, 2, 45, 72)
    photons = coarse[:, 0].sum((1, 2)) + centre[:, 0].sum((1, 2))
    assert_close(grid[:, 0].sum((1, 2)), photons)
    assert_close(grid[:, 1, ::5, ::3][:, 0], coarse[:, 1, 0])
    assert_close(grid[:, 1, 15:30:3, 30:42:2], centre[:, 1])
