"""Elementary functions that are exact to float32 over the range an environment can reach.

On CPU, XLA's general sine and cosine reduce their argument for any float and dominate a step of the
classic-control tasks. Over a known, small range a polynomial is exact to the last bits of float32 and
vectorises. `tests/core/test_numerics.py` holds each against numpy in float64.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TWO_OVER_PI = np.float32(2 / np.pi)
# pi/2 in two parts (Cody & Waite 1980): the first has few bits, so n * _HALF_PI_HIGH is exact.
_HALF_PI_HIGH = np.float32(1.5703125)
_HALF_PI_LOW = np.float32(np.pi / 2 - 1.5703125)


def _sin_cos_quarter(
    angle: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Minimax polynomials (Cephes sinf/cosf, S. Moshier 1989) on [-pi/4, pi/4]."""
    square = angle * angle
    sine = angle + angle * square * (
        -1.6666654611e-1 + square * (8.3321608736e-3 + square * -1.9515295891e-4)
    )
    cosine = (
        1.0
        - 0.5 * square
        + square
        * square
        * (4.166664568298827e-2 + square * (-1.388731625493765e-3 + square * 2.443315711809948e-5))
    )
    return sine, cosine


def sin_cos_small(
    angle: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Sine and cosine for |angle| <= pi/4, to 1e-7 absolute; meaningless beyond."""
    return _sin_cos_quarter(angle)


def sin_cos(angle: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Sine and cosine for |angle| <= 100, to 1e-6 absolute; slowly less exact beyond.

    Branch-free: one reduction to a quarter turn serves both results.
    """
    turns = jnp.round(angle * _TWO_OVER_PI)
    remainder = (angle - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW
    sine, cosine = _sin_cos_quarter(remainder)
    quadrant = turns.astype(jnp.int32)
    odd = (quadrant & 1) == 1
    swapped_sine = jnp.where(odd, cosine, sine)
    swapped_cosine = jnp.where(odd, sine, cosine)
    sine = jnp.where((quadrant & 2) == 2, -swapped_sine, swapped_sine)
    cosine = jnp.where(((quadrant + 1) & 2) == 2, -swapped_cosine, swapped_cosine)
    return sine, cosine
