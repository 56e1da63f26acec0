"""Initial weights."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def orthogonal(key: Key[Array, ""], shape: tuple[int, int], scale: float) -> Float[Array, "..."]:
    """A random matrix with orthonormal rows or columns, times `scale` (Saxe et al. 2013).

    Modified Gram-Schmidt, applied twice per column, instead of LAPACK's QR: XLA's batched QR
    (`jax.nn.initializers.orthogonal` under `vmap`) can wait for itself forever on a CPU with few
    threads (seen with JAX 0.10.2 on two cores and eight seeds).
    """
    rows, columns = max(shape), min(shape)
    columns_of = jax.random.normal(key, (rows, columns))

    def orthonormalise(index, matrix):
        column = matrix[:, index]
        before = jnp.arange(columns) < index
        for _ in range(2):
            column = column - matrix @ jnp.where(before, column @ matrix, 0.0)
        return matrix.at[:, index].set(column / jnp.linalg.norm(column))

    matrix = jax.lax.fori_loop(0, columns, orthonormalise, columns_of)
    return scale * (matrix if shape[0] >= shape[1] else matrix.T)
