"""Raw columns become network inputs as the feature list says."""

import math

import pytest
import torch
from torch.testing import assert_close

from hepattn.nn.normalise import Feature, Normalise
from nn.column_cases import summarise

FEATURES = (
    Feature("z", scale=0.001),
    Feature("charge", transform="log", shift=1.0, scale=2.0, clip=(-3, 3)),
    Feature("phi"),
    Feature("cells", transform="log1p"),
)


def test_each_column_gets_its_own_transform_shift_scale_and_clip() -> None:
    x = torch.tensor([[[500.0, 2.5, 3.0, 4.0], [-100.0, 0.0, -3.0, 0.0]]])
    expected = [
        [0.5, (math.log(2.5) - 1) * 2, 3.0, math.log(5)],
        [-0.1, -3.0, -3.0, 0.0],
    ]
    assert_close(Normalise(FEATURES)(x, torch.ones(1, 2).bool()), torch.tensor([expected]))


def test_padded_slots_are_zero_whatever_they_hold() -> None:
    x = torch.tensor([[[500.0, 2.5, 3.0, 4.0], [math.nan] * 4]])
    out = Normalise(FEATURES)(x, torch.tensor([[True, False]]))
    assert (out[0, 1] == 0).all()
    assert out[0, 0].isfinite().all()


def test_autocast_does_not_cost_coordinates_their_precision() -> None:
    z = torch.tensor([[[2900.123]]])
    normalise = Normalise([Feature("z", scale=0.001)])
    with torch.autocast("cpu", torch.bfloat16):
        out = normalise(z, torch.ones(1, 1).bool())
    assert out.dtype == torch.float32
    assert_close(out, z * 0.001)


def test_a_checkpoint_loads_into_the_same_feature_list() -> None:
    Normalise(FEATURES).load_state_dict(Normalise(FEATURES).state_dict())


def test_the_feature_list_in_a_checkpoint_is_plain_data(tmp_path: object) -> None:
    path = f"{tmp_path}/weights.pt"
    torch.save(Normalise(FEATURES).state_dict(), path)
    Normalise(FEATURES).load_state_dict(torch.load(path, weights_only=True))


def test_another_order_of_features_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trained on the features \['z', 'charge'"):
        Normalise(FEATURES[::-1]).load_state_dict(Normalise(FEATURES).state_dict())


def test_another_scale_of_a_feature_is_refused() -> None:
    other = (Feature("z", scale=0.01), *FEATURES[1:])
    with pytest.raises(ValueError, match=r"feature z: .*\(scale differ\)"):
        Normalise(other).load_state_dict(Normalise(FEATURES).state_dict())


def test_a_value_for_missing_columns_may_differ_from_the_checkpoint() -> None:
    other = (Feature("z", scale=0.001, missing=0.0), *FEATURES[1:])
    Normalise(other).load_state_dict(Normalise(FEATURES).state_dict())


@pytest.mark.parametrize("names", [[], ["x", "x"]])
def test_an_empty_or_repeating_feature_list_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="list of different names"):
        Normalise([Feature(name) for name in names])


def test_an_unknown_feature_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'eta' is not in the feature list \['z', 'charge'"):
        Normalise(FEATURES).index("eta")


@pytest.mark.parametrize(
    ("options", "message"), [({"scale": 0.0}, "scale=0"), ({"clip": (1, 1)}, "clip=")]
)
def test_a_senseless_feature_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature("x", **options)


def test_columns_that_are_not_embedded_are_left_out() -> None:
    features = [Feature("phi", embed=False), Feature("z", scale=0.5), Feature("x", embed=False)]
    normalise = Normalise(features)
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert_close(normalise(x, torch.ones(1, 1).bool()), torch.tensor([[[1.0]]]))
    assert normalise.index("x") == 2


def test_something_must_be_embedded() -> None:
    with pytest.raises(ValueError, match="no feature is embedded"):
        Normalise([Feature("phi", embed=False)])


FITTED = (
    Feature("met", fitted="quantile"),
    Feature("ht", transform="log", fitted="standard", clip=(-2, 2)),
    Feature("sphericity", scale=2.0),
    Feature("mass", fitted="power"),
)


def fitted() -> Normalise:
    normalise = Normalise(FITTED)
    x = torch.rand(200, 4) + 0.5
    x[:, 1] = x[:, 1].log()
    normalise.fit(summarise(x))
    return normalise


def test_each_column_gets_its_own_fitted_scaling() -> None:
    x = torch.rand(50, 4) + 0.5
    normalise = fitted()
    out = normalise(x)
    met, mass = normalise.curves["quantile"], normalise.curves["power"]
    ht = ((x[:, 1].log() - normalise.shift[1]) * normalise.scale[1]).clamp(-2, 2)
    standard = (x[:, 3:] - normalise.shift[3]) * normalise.scale[3]
    assert_close(out, torch.cat([met(x[:, :1]), ht[:, None], 2 * x[:, 2:3], mass(standard)], 1))


def test_a_scaling_that_is_still_to_be_fitted_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"scaling of \['met', 'ht', 'mass'\] .*fit_inputs"):
        Normalise(FITTED)(torch.rand(2, 4))


def test_a_checkpoint_carries_what_was_fitted() -> None:
    normalise, loaded = fitted(), Normalise(FITTED)
    loaded.load_state_dict(normalise.state_dict())
    x = torch.rand(5, 4) + 0.5
    assert_close(loaded(x), normalise(x))


def test_a_checkpoint_of_what_was_not_fitted_fits_nothing() -> None:
    loaded = Normalise(FITTED)
    loaded.load_state_dict(Normalise(FITTED).state_dict())
    with pytest.raises(RuntimeError, match="fit_inputs"):
        loaded(torch.rand(2, 4))


def test_a_checkpoint_from_before_there_were_fitted_scalings_loads() -> None:
    state = Normalise(FEATURES).state_dict()
    for entry in state["_extra_state"]:
        del entry["fitted"], entry["categories"]
    Normalise(FEATURES).load_state_dict(state)


def test_other_categories_than_those_of_a_checkpoint_are_refused() -> None:
    state = Normalise([Feature("charge", categories=(-1, 1))]).state_dict()
    with pytest.raises(ValueError, match=r"\(categories differ\)"):
        Normalise([Feature("charge", categories=(-1, 0, 1))]).load_state_dict(state)


def test_statistics_of_another_number_of_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="the summary has 3 columns, the feature list has 4"):
        Normalise(FITTED).fit(summarise(torch.rand(10, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fitted": "standard", "shift": 1.0}, "leave out shift=1.0"),
        ({"fitted": "standard", "categories": (0, 1)}, "categories are not scaled"),
        ({"transform": "log", "categories": (0, 1)}, "categories are not scaled"),
        ({"categories": ()}, "one or more different values"),
        ({"categories": (1, 1)}, "one or more different values"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature("x", **options)


def test_columns_of_events_need_no_padding() -> None:
    x = torch.rand(3, 4)
    assert_close(Normalise(FEATURES)(x), Normalise(FEATURES)(x[None], torch.ones(1, 3) > 0)[0])
