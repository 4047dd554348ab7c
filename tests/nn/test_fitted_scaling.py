"""Scalings that are fitted give what scikit-learn and scipy give."""

import math

import pytest
import torch
from scipy import special, stats
from sklearn import preprocessing
from torch import Tensor
from torch.testing import assert_close

from hepattn.nn.fitted_scaling import FITTED_SCALINGS, FittedScaling, QuantileCurve, yeo_johnson
from hepattn.nn.normalise import Feature, Normalise
from nn.column_cases import NUM_QUANTILES, summarise

PEERS = {
    "standard": preprocessing.StandardScaler(),
    "robust": preprocessing.RobustScaler(),
    "minmax": preprocessing.MinMaxScaler(),
    "maxabs": preprocessing.MaxAbsScaler(),
}


def draw_columns() -> Tensor:
    """As many values as there are quantiles: a mass, a momentum, a number of jets, a phase."""
    x = torch.stack(
        [
            91 + 5 * torch.randn(NUM_QUANTILES),
            25 * torch.rand(NUM_QUANTILES).pow(-0.6),
            torch.poisson(torch.full((NUM_QUANTILES,), 2.0)),
            6 * torch.rand(NUM_QUANTILES) - 3,
        ],
        1,
    )
    return x.float()


def fit(x: Tensor, scaling: FittedScaling) -> Normalise:
    normalise = Normalise([Feature(f"x{i}", fitted=scaling) for i in range(x.shape[1])])
    normalise.fit(summarise(x))
    return normalise


@pytest.mark.parametrize("scaling", PEERS)
def test_linear_scalings_are_those_of_scikit_learn(scaling: FittedScaling) -> None:
    x = draw_columns()
    expected = PEERS[scaling].fit_transform(x.double().numpy())
    assert_close(fit(x, scaling)(x).double(), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


def test_the_power_is_the_most_likely_one_of_scipy() -> None:
    x = draw_columns()
    normalise = fit(x, "power")
    for column, y in enumerate(normalise(x).T):
        z = stats.zscore(x[:, column].double().numpy())
        expected = stats.zscore(stats.yeojohnson(z)[0])
        assert_close(y.double(), torch.from_numpy(expected), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("power", [-1.5, 0.0, 0.7, 2.0, 3.0])
def test_the_curve_of_yeo_and_johnson_is_that_of_scipy(power: float) -> None:
    x = torch.linspace(-3, 4, 50, dtype=torch.float64)
    expected = torch.from_numpy(stats.yeojohnson(x.numpy(), power))
    assert_close(yeo_johnson(x, torch.tensor(power, dtype=x.dtype)), expected)


def test_quantiles_go_to_those_of_a_normal_distribution() -> None:
    x = draw_columns()[:, [0, 1, 3]]
    peer = preprocessing.QuantileTransformer(
        n_quantiles=NUM_QUANTILES, output_distribution="normal", subsample=None
    )
    expected = torch.from_numpy(peer.fit_transform(x.double().numpy()))
    found = fit(x, "quantile")(x).double()
    inside = expected.abs() < 3
    assert inside.float().mean() > 0.9
    assert_close(found[inside], expected[inside], atol=2e-3, rtol=1e-3)
    assert found.abs().max() < 3.4


def test_a_discrete_value_goes_to_the_middle_of_its_quantiles() -> None:
    x = draw_columns()[:, 2:3]
    places = torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.float64)
    ordered = x[:, 0].sort().values
    middle = torch.stack([places[ordered == value].mean() for value in x[:, 0]])
    expected = torch.special.ndtri(middle.clamp(0.5 / NUM_QUANTILES, 1 - 0.5 / NUM_QUANTILES))
    assert_close(fit(x, "quantile")(x)[:, 0].double(), expected, atol=1e-5, rtol=1e-5)


def test_between_quantiles_the_quantile_curve_is_straight() -> None:
    curve = QuantileCurve(1)
    curve.fit(torch.tensor([[0.0], [1.0], [3.0]]))
    x = torch.tensor([[-5.0], [0.0], [0.25], [1.0], [2.0], [9.0], [math.inf], [-math.inf]])
    low = stats.norm.ppf(0.5 / 3)
    expected = [low, low, 0.75 * low, 0, -0.5 * low, -low, -low, low]
    assert_close(curve(x)[:, 0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("scaling", ["logit", "standard_logit"])
def test_the_logit_is_that_of_scipy_a_thousandth_from_the_ends(scaling: FittedScaling) -> None:
    x = draw_columns()
    share = preprocessing.MinMaxScaler().fit_transform(x.double().numpy())
    expected = special.logit(0.001 + 0.998 * share)
    if scaling == "standard_logit":
        expected = preprocessing.StandardScaler().fit_transform(expected)
    normalise = fit(x, scaling)
    assert_close(normalise(x).double(), torch.from_numpy(expected), atol=2e-3, rtol=1e-3)
    ends = normalise(torch.tensor([[-math.inf] * 4, [math.inf] * 4]))
    assert_close(ends, torch.stack([normalise(x).amin(0), normalise(x).amax(0)]))


def test_too_many_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="2000 quantiles must be fewer than 1024"):
        QuantileCurve(1).fit(torch.rand(2000, 1))


@pytest.mark.parametrize("scaling", FITTED_SCALINGS)
@pytest.mark.parametrize("constant", [0.0, -7.0, 1e6])
def test_a_constant_column_stays_finite(scaling: FittedScaling, constant: float) -> None:
    x = torch.full((20, 1), constant)
    normalise = fit(x, scaling)
    assert_close(normalise(x), torch.zeros_like(x) if scaling != "maxabs" else x.sign())
    assert normalise(x + 1).isfinite().all()


@pytest.mark.parametrize("scaling", FITTED_SCALINGS)
def test_a_column_that_training_has_never_seen_stays_finite(scaling: FittedScaling) -> None:
    normalise = Normalise([Feature("x", fitted=scaling)])
    nan = summarise(torch.full((3, 1), math.nan))
    normalise.fit(nan)
    assert normalise(torch.tensor([[0.5]])).isfinite().all()


@pytest.mark.parametrize("scaling", FITTED_SCALINGS)
def test_scalings_keep_the_order(scaling: FittedScaling) -> None:
    x = draw_columns()
    between = torch.linspace(-10, 200, 500).unsqueeze(1).expand(-1, x.shape[1])
    assert (fit(x, scaling)(between).diff(dim=0) >= 0).all()


@pytest.mark.parametrize("scaling", FITTED_SCALINGS)
def test_what_is_not_a_number_stays_none(scaling: FittedScaling) -> None:
    x = draw_columns()
    out = fit(x, scaling)(x.index_fill(0, torch.tensor([3]), math.nan))
    assert out[3].isnan().all()
    assert out.isfinite().sum() == x.numel() - x.shape[1]
