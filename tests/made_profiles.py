"""A profile with numbers that are easy to check."""

from kiloworlds.profiling.ceilings import Ceilings
from kiloworlds.profiling.profile import (
    COPIES,
    ENVIRONMENT,
    LEARNING,
    POLICY,
    Operation,
    Part,
    Pool,
    Profile,
)

SETTINGS = {
    "num_envs": 16,
    "num_seeds": 1,
    "num_workers": None,
    "batch_size": None,
    "max_staleness": 0,
    "devices": None,
    "num_steps": 64,
    "num_epochs": 4,
    "num_minibatches": 4,
    "hidden_sizes": (8,),
    "network": "auto",
}


def a_profile(
    environment: float = 0.1,
    policy: float = 0.2,
    learning: float = 0.7,
    copies: float = 0.0,
    *,
    loop: str = "fused",
    pool: Pool | None = None,
    compilation: float = 1.0,
    **settings,
) -> Profile:
    """A profile of updates of a second, in which the parts take so long."""
    return Profile(
        "ppo",
        "CartPole-v1",
        "compiled" if loop == "fused" else "process",
        loop,
        SETTINGS | settings,
        steps_per_update=1024,
        seconds_per_update=1.0,
        updates=10,
        parts=[
            Part(ENVIRONMENT, environment, 0.01, "measured", 1e9, 4e9),
            Part(POLICY, policy, 0.01, "measured", 1e9, 1e9),
            Part(LEARNING, learning, 0.01, "measured", 4e9, 1e9),
            Part(COPIES, copies, 0.01, "measured"),
        ],
        compilation={"seconds": compilation, "programs": 2, "from_cache": 0},
        operations=[Operation("dot.1", "dot", "networks/mlp.py:1", 0.3, 0.5, 4.0, 2e9, 1e8)],
        ceilings=Ceilings(100e9, 50e9, 60e9, 40e9, "cpu"),
        pool=pool,
    )
