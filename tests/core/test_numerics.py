import jax
import jax.numpy as jnp
import numpy as np
import pytest
from full_optimization import FULL

from kiloworlds.core.numerics import sin_cos, sin_cos_small, wrap_angle


def _angles(limit, count=1_000_000):
    """Evenly spaced float32 angles, with the multiples of a quarter turn and their neighbours."""
    quarters = np.arange(0, limit, np.pi / 4, np.float64).astype(np.float32)
    borders = np.concatenate(
        [quarters, np.nextafter(quarters, np.float32(0)), np.nextafter(quarters, np.float32(limit))]
    )
    angles = np.concatenate([np.linspace(-limit, limit, count), borders, -borders])
    return np.clip(angles, -limit, limit).astype(np.float32)


def _largest_error(function, reference, angles):
    got = np.asarray(jax.jit(function, compiler_options=FULL)(angles), np.float64)
    return np.abs(got - reference(angles.astype(np.float64))).max()


@pytest.mark.parametrize(
    ("function", "limit", "tolerance"),
    [(sin_cos_small, np.pi / 4, 1e-7), (sin_cos, np.pi, 2e-7), (sin_cos, 1000.0, 2e-7)],
)
def test_sine_and_cosine_are_as_exact_as_documented(function, limit, tolerance):
    angles = _angles(limit)
    assert _largest_error(lambda x: function(x)[0], np.sin, angles) <= tolerance
    assert _largest_error(lambda x: function(x)[1], np.cos, angles) <= tolerance


def test_sin_cos_loses_exactness_slowly_beyond_its_range():
    angles = _angles(1e5)
    assert _largest_error(lambda x: sin_cos(x)[0], np.sin, angles) <= 1e-6
    assert _largest_error(lambda x: sin_cos(x)[1], np.cos, angles) <= 1e-6


def test_sin_cos_small_keeps_its_border_values_beyond_its_range():
    sine, cosine = sin_cos_small(jnp.array([-50.0, 50.0]))
    np.testing.assert_allclose(sine, [-np.sqrt(0.5), np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(cosine, np.sqrt(0.5), atol=1e-6)


@pytest.mark.parametrize("limit", [np.pi, 10.0, 1000.0])
def test_wrapped_angle_is_equivalent_and_within_half_a_turn(limit):
    angles = _angles(limit)
    wrapped = np.asarray(jax.jit(wrap_angle)(angles), np.float64)
    assert np.abs(wrapped).max() <= np.pi + 1e-7 * (1 + limit)
    apart = np.abs(wrapped - angles.astype(np.float64)) % (2 * np.pi)
    assert np.minimum(apart, 2 * np.pi - apart).max() <= 2e-7


def test_wrapping_changes_no_angle_within_half_a_turn():
    angles = np.clip(_angles(np.pi), -np.float32(3.1415925), np.float32(3.1415925))
    # XLA takes numbers below the normal range of float32 for zero.
    np.testing.assert_allclose(jax.jit(wrap_angle)(angles), angles, rtol=0, atol=1e-37)
