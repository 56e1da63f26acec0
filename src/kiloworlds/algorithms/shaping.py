"""How long an environment's shaped rewards count."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kiloworlds.core.checks import require_number


@dataclass(frozen=True)
class ShapedRewards:
    """Settings of shaped rewards (`"shaped_reward"` of an environment's info), which lead where an
    environment's own rewards are far or discouraging, and fade out so that those decide in the end."""

    shaping_steps: int = 0
    """Environment steps over which the environment's shaped rewards fade out; 0 leaves them out."""
    shaping_hold_steps: int = 0
    """Environment steps before they begin to fade."""

    def check_shaping(self) -> None:
        """Raises InvalidValueError for numbers that are no numbers of steps."""
        for name in ("shaping_steps", "shaping_hold_steps"):
            require_number(name, getattr(self, name), 0, 2**53, whole=True)

    @property
    def shapes_rewards(self) -> bool:
        """Whether shaped rewards count at all."""
        return self.shaping_steps + self.shaping_hold_steps > 0

    def shaping_weight(self, steps: Any) -> Float[Array, ""]:
        """What shaped rewards are multiplied by after so many environment steps: from 1 to 0."""
        left = self.shaping_hold_steps + self.shaping_steps - steps
        return jnp.clip(left / max(self.shaping_steps, 1), 0.0, 1.0)
