"""Running statistics for normalising observations and rewards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


def mean_over_devices(
    values: Float[Array, "..."],
    axes: int | tuple[int, ...],
    axis_name: str | None,
    weight: Float[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """The mean over some axes and, with `axis_name`, over the devices on that axis.

    With `weight` it is the weighted mean, 0 where all weights are.

    For a variance take the mean of squared distances from the mean, never the mean of squares less
    the squared mean: in 32 bits that difference loses everything when the mean is large.
    """
    if weight is None:
        mean = values.mean(axes)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
    total, count = (values * weight).sum(axes), weight.sum(axes)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1.0)


class RunningStatistics(NamedTuple):
    """Number, mean and variance of everything seen, per entry of a pytree."""

    total: Float[Array, ""]
    mean: PyTree
    variance: PyTree

    @classmethod
    def of_shape(cls, example: PyTree) -> "RunningStatistics":
        """Statistics that have seen nothing: mean 0 and variance 1."""
        return cls(
            jnp.float32(1e-4),
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), example),
            jax.tree.map(lambda leaf: jnp.ones(leaf.shape), example),
        )

    def update(
        self,
        batch: PyTree,
        axis_name: str | None = None,
        valid: Bool[Array, "T N"] | None = None,
    ) -> "RunningStatistics":
        """Merges a batch `[T, N, ...]` by the parallel formula of Chan et al. (1983).

        With `axis_name` the batches of all devices on that axis are merged. Only what is `valid` counts.
        """
        leaves = jax.tree.leaves(batch)
        rows, columns = leaves[0].shape[:2]
        size = jnp.float32(rows * columns if valid is None else valid.sum())
        if axis_name is not None:
            size = jax.lax.psum(size, axis_name)

        def mean_of(leaf):
            weight = None
            if valid is not None:
                weight = valid.reshape(*valid.shape, *[1] * (leaf.ndim - 2)).astype(jnp.float32)
            return mean_over_devices(leaf, (0, 1), axis_name, weight)

        means = jax.tree.map(mean_of, batch)
        variances = jax.tree.map(lambda leaf, mean: mean_of((leaf - mean) ** 2), batch, means)
        total = self.total + size
        share = size / total

        def merge(mean, variance, batch_mean, batch_variance):
            gap = batch_mean - mean
            merged = variance + share * (batch_variance - variance)
            return mean + share * gap, merged + share * (1 - share) * gap**2

        pairs = jax.tree.map(merge, self.mean, self.variance, means, variances)
        structure = jax.tree.structure(self.mean)
        flat = structure.flatten_up_to(pairs)
        return RunningStatistics(
            total,
            structure.unflatten([pair[0] for pair in flat]),
            structure.unflatten([pair[1] for pair in flat]),
        )

    def normalize(self, value: PyTree, limit: float = 10.0) -> PyTree:
        """Zero mean and unit variance, clipped to +-`limit`."""
        return jax.tree.map(
            lambda leaf, mean, variance: jnp.clip(
                (leaf - mean) * jax.lax.rsqrt(variance + 1e-8), -limit, limit
            ),
            value,
            self.mean,
            self.variance,
        )
