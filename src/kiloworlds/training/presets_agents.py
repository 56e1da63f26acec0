"""Settings for the worlds of several agents: presets of families, whose ids begin alike.

What they reach is measured by scripts/results and told in docs/results.
"""

from typing import Any

# Of the particle worlds. Far values are hard to learn where nothing ends but by the
# time limit: a short horizon and scaled rewards help most.
_PARTICLES = {
    "total_steps": 2_000_000,
    "num_envs": 32,
    "num_steps": 50,
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "normalize_rewards": True,
    "clip_range_value": None,
}

# JaxMARL's MAPPO for SMAX (Rutherford et al., "JaxMARL: Multi-Agent RL Environments and Algorithms in
# JAX", 2023) with fewer environments and a smaller network, for processors without a GPU. Measured on
# 3m with mappo: 88 to 93% of the battles won; on 2s3z all.
_BATTLE = {
    "total_steps": 2_500_000,
    "num_envs": 32,
    "num_steps": 64,
    "learning_rate": 2e-3,
    "network": "gru",
    "activation": "relu",
    "recurrent_size": 64,
    "entropy_coefficient": 0.0,
    "max_grad_norm": 0.25,
    "clip_range_value": None,
}

# Soups are far from the first steps: hints along the way, which fade out, lead there (Carroll et al.
# 2019). Measured in the cramped room with ippo: 240.
_KITCHEN = {
    "total_steps": 2_000_000,
    "num_envs": 64,
    "num_steps": 128,
    "learning_rate": 1e-3,
    "normalize_rewards": True,
    "shaping_steps": 1_000_000,
    "clip_range_value": None,
}

# Measured with ippo: half of the coins that selfish players take are their own, and 87 to 89% where
# rewards are shared.
_COINS = {
    "total_steps": 2_000_000,
    "num_envs": 64,
    "num_steps": 50,
    "learning_rate": 1e-3,
    "gamma": 0.9,
    "clip_range_value": None,
}

# What a prisoner knows of the days gone by it must remember. Measured with vdn only, below.
_RIDDLE = {
    "total_steps": 3_000_000,
    "num_envs": 128,
    "num_steps": 24,
    "learning_rate": 2e-3,
    "network": "gru",
    "activation": "relu",
    "recurrent_size": 64,
    "clip_range_value": None,
}

# Losing takes all points, which teaches to stop playing before any convention is found: with hints that
# fade from the first step on it ends at 4 points of 10. So losing takes none for half of the training,
# then ever more. Measured with mappo on small-2p: 7.2.
_CARDS = {
    "total_steps": 6_000_000,
    "num_envs": 64,
    "num_steps": 64,
    "num_minibatches": 8,
    "learning_rate": 1e-3,
    "hidden_sizes": (256,),
    "activation": "relu",
    "entropy_coefficient": 0.03,
    "shaping_hold_steps": 3_000_000,
    "shaping_steps": 2_000_000,
    "clip_range_value": None,
}

# Values are learnt best close to zero: with a discount of 0.99, or rewards as they are, they end up
# worse than they began (pqn_vdn), or one seed of three does (qmix).
_PARTICLES_BY_VALUES = {
    "total_steps": 500_000,
    "num_envs": 16,
    "num_steps": 25,
    "learning_rate": 1e-3,
    "network": "mlp",
    "hidden_sizes": (64, 64),
    "gamma": 0.9,
    "reward_scale": 0.2,
}

# Whole riddles fit a sequence twice; all that a prisoner knows it remembers. Measured with vdn: 70 to
# 71% won, of 74% that can be.
_RIDDLE_BY_VALUES = {
    "total_steps": 1_000_000,
    "num_envs": 64,
    "num_steps": 12,
    "learning_rate": 1e-3,
    "gamma": 0.95,
}

_BY_POLICIES = {
    "mpe/": _PARTICLES,
    "smax/": _BATTLE,
    "overcooked": _KITCHEN,
    "coin_game": _COINS,
    "switch_riddle": _RIDDLE,
    "hanabi/": _CARDS,
}
_TEAMS_OF_PARTICLES = (
    "mpe/simple_spread",
    "mpe/simple_reference",
    "mpe/simple_speaker_listener",
)
_BY_TEAM_VALUES = {
    **dict.fromkeys(_TEAMS_OF_PARTICLES, _PARTICLES_BY_VALUES),
    "switch_riddle": _RIDDLE_BY_VALUES,
}

# Not measured.
_TWO_SIDES = {
    **dict.fromkeys(("mpe/simple_tag", "mpe/simple_push"), _PARTICLES),
    "smax/": {**_BATTLE, "env_kwargs": {"opponent": "learned"}},
}

AGENT_FAMILIES: dict[str, dict[str, dict[str, Any]]] = {
    "ippo": _BY_POLICIES,
    "mappo": _BY_POLICIES,
    "self_play": _TWO_SIDES,
    "iql": {"mpe/": _PARTICLES_BY_VALUES},
    "vdn": _BY_TEAM_VALUES,
    "qmix": _BY_TEAM_VALUES,
    "pqn_vdn": _BY_TEAM_VALUES,
}
"""By algorithm and beginning of the id."""
