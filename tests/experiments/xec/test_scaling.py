"""From photons and times to channels, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from hepattn.experiments.xec.scaling import ScalingOptions, SensorScaling

SCHEMES = ("sqrt", "anscombe", "log1p", "linear")


def scale(photons: list[float], scheme: str, photon_scale: float, log_scale: float) -> torch.Tensor:
    options = ScalingOptions(scheme, photon_scale=photon_scale, log_scale=log_scale)
    return SensorScaling(options).scale_photons(torch.tensor(photons))


def test_schemes_are_their_formulas() -> None:
    x = torch.tensor([0.0, 1.0, 500.0, 20_000.0])
    assert_close(scale(x.tolist(), "sqrt", 1000.0, 1.0), (x / 1000).sqrt())
    assert_close(scale(x.tolist(), "anscombe", 1000.0, 1.0), ((x + 0.375) / 1000.375).sqrt())
    assert_close(scale(x.tolist(), "log1p", 1000.0, 4.08), (1 + x / 1000).log() / 4.08)
    assert_close(scale(x.tolist(), "linear", 1000.0, 1.0), x / 1000)


def test_below_the_domain_the_value_is_zero() -> None:
    assert scale([-5.0], "sqrt", 1000.0, 1.0).item() == 0
    assert scale([-0.5], "anscombe", 1000.0, 1.0).item() == 0
    assert scale([-1000.0], "log1p", 1000.0, 1.0).item() == 0
    assert scale([-1000.0], "linear", 1000.0, 1.0).item() == -1


@given(
    scheme=st.sampled_from(SCHEMES),
    photons=st.lists(st.floats(0, 1e5), min_size=1, max_size=5),
    photon_scale=st.floats(0.5, 2e4),
)
def test_unscaling_gives_the_photons_back(
    scheme: str, photons: list[float], photon_scale: float
) -> None:
    scaling = SensorScaling(ScalingOptions(scheme, photon_scale, log_scale=2.0)).double()
    x = torch.tensor(photons, dtype=torch.float64)
    assert_close(scaling.unscale_photons(scaling.scale_photons(x)), x, rtol=1e-6, atol=1e-6)


def test_times_count_from_the_mean_of_those_that_are_known() -> None:
    scaling = SensorScaling(ScalingOptions(time_scale=10.0))
    photons = torch.tensor([[100.0, 300.0, 1e6]])
    time, known = torch.tensor([[2.0, 6.0, torch.nan]]), torch.tensor([[True, True, False]])
    reference = scaling.reference(photons, time, known)
    assert_close(reference, torch.tensor([5.0]))
    scaled = scaling.scale_time(time, reference)
    assert_close(scaled[0, :2], torch.tensor([-0.3, 0.1]))
    assert_close(scaling.unscale_time(scaled, reference)[0, :2], time[0, :2])


def test_an_event_without_times_has_a_reference() -> None:
    scaling = SensorScaling(ScalingOptions())
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert scaling.reference(torch.ones(1, 3), torch.ones(1, 3), nothing).item() == 0


@pytest.mark.parametrize("validity", [True, False])
def test_what_is_not_known_shows_as_sentinels_alone(validity: bool) -> None:
    options = ScalingOptions(sentinels=(-1.0, -5.0), validity=validity)
    scaling = SensorScaling(options)
    photons = torch.tensor([[400.0, torch.nan, 400.0]])
    time = torch.tensor([[1.0, torch.inf, torch.nan]])
    valid, timed = torch.tensor([[True, False, True]]), torch.tensor([[True, False, False]])
    channels = scaling(photons, time, valid, timed, scaling.reference(photons, time, timed))
    assert channels.shape == (1, 3, options.num_channels)
    assert_close(channels[0, 1, :2], torch.tensor([-1.0, -5.0]))
    assert channels[0, 2, 1] == -5
    assert channels.isfinite().all()
    if validity:
        assert channels[0, :, 2:].tolist() == [[1, 1], [0, 0], [1, 0]]


def test_scaling_ignores_autocast() -> None:
    scaling = SensorScaling(ScalingOptions())
    time = torch.tensor([[9.01, 9.02]])
    known = torch.ones(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        channels = scaling(torch.ones(1, 2), time, known, known, torch.zeros(1))
    assert channels.dtype == torch.float32
    assert_close(channels[0, :, 1], time[0] / 10)


def test_weights_of_another_scaling_are_refused() -> None:
    state = SensorScaling(ScalingOptions(scheme="log1p", photon_scale=1000.0)).state_dict()
    with pytest.raises(ValueError, match=r"scheme=log1p, here sqrt, photon_scale=1000.0, here 200"):
        SensorScaling(ScalingOptions()).load_state_dict(state)
    SensorScaling(ScalingOptions("log1p", 1000.0)).load_state_dict(state)


def test_scales_must_be_positive() -> None:
    with pytest.raises(ValueError, match="time_scale=0 must be positive"):
        ScalingOptions(time_scale=0)
