"""Elementary functions that are exact to float32 over the range an environment can reach.

On CPU, XLA's general sine and cosine reduce their argument for any float and dominate a step of the
classic-control tasks. Over a known range a polynomial is exact to the last bits of float32 and
vectorises. `tests/core/test_numerics.py` holds each against numpy in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# pi in two parts (Cody & Waite 1980): the first has few bits, so n * _PI_HIGH is exact in float32.
_PI_HIGH = 3.140625
_PI_LOW = np.pi - _PI_HIGH


def sin_cos_small(
    angle: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Sine and cosine for |angle| <= pi/4, to 1e-7 absolute; their values at +-pi/4 beyond.

    Minimax polynomials (Cephes sinf and cosf, S. Moshier 1989).
    """
    angle = jnp.clip(angle, -np.pi / 4, np.pi / 4)
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


def sin_cos(angle: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Sine and cosine for |angle| <= 1000, to 2e-7 absolute; slowly less exact beyond.

    Reduces to half a turn, [-pi/2, pi/2], so that the compiler drops the other polynomial where
    only one of the two is used. The coefficients are a minimax fit of degree 9 and 10.
    """
    turns = jnp.round(angle * (1 / np.pi))
    remainder = (angle - turns * _PI_HIGH) - turns * _PI_LOW
    square = remainder * remainder
    sine = remainder + remainder * square * (
        -1.66666571e-1
        + square * (8.33301635e-3 + square * (-1.98065470e-4 + square * 2.5999030e-6))
    )
    cosine = 1.0 - square * (
        0.5
        - square
        * (
            4.16666557e-2
            + square * (-1.38885682e-3 + square * (2.47692406e-5 + square * -2.6192482e-7))
        )
    )
    odd = turns.astype(jnp.int32) << 31  # the sign bit of float32: odd half turns change the sign
    return _flip_sign(sine, odd), _flip_sign(cosine, odd)


def wrap_angle(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """The equivalent angle in [-pi, pi], to 2e-7 absolute modulo 2 pi for |angle| <= 1000.

    An angle of many turns that lies within 1e-7 |angle| of the border may stay on its far side.
    """
    turns = jnp.round(angle * (0.5 / np.pi))
    return (angle - turns * (2 * _PI_HIGH)) - turns * (2 * _PI_LOW)


def _flip_sign(value: Float[Array, "..."], sign_bit: Array) -> Float[Array, "..."]:
    bits = jax.lax.bitcast_convert_type(value, jnp.int32)
    return jax.lax.bitcast_convert_type(bits ^ sign_bit, jnp.float32)
