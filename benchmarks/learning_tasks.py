"""Which presets are trained for docs/results, and what others reach there."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

PEER = "JaxMARL's IPPO"
"""Published scripts and settings of JaxMARL 0.2, trained here for as many steps as our preset."""

CLASSIC, TOY_TEXT, AGENTS, OUTSIDE = (
    "Classic control",
    "Toy text",
    "Several agents",
    "Outside XLA",
)
SECTIONS = (CLASSIC, TOY_TEXT, AGENTS, OUTSIDE)


@dataclass(frozen=True)
class Task:
    """An algorithm on an environment, with its preset.

    Attributes:
        settings: what makes it a task of its own beside the preset, such as whether the players of a
            dilemma look after each other.
        label: names them.
        seeds: how many are trained.
        episodes: that each seed's final policy plays.
        apart: whether each seed is trained by itself: outside XLA.
    """

    algorithm: str
    env: str
    section: str
    seeds: int = 3
    episodes: int = 512
    settings: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    apart: bool = False

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.env}" + (f", {self.label}" if self.label else "")


_SHARED = {"env_kwargs": {"shared_rewards": True}}
_SPREAD, _REFERENCE, _TAG = PARTICLES = (
    "mpe/simple_spread_v3",
    "mpe/simple_reference_v3",
    "mpe/simple_tag_v3",
)

TASKS = [
    *(
        Task("ppo", env, CLASSIC, seeds=10, episodes=5_000)
        for env in (
            *("CartPole-v0", "CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
            *("MountainCarContinuous-v0", "Pendulum-v1", "Catch-v0"),
        )
    ),
    *(
        Task("ppo", env, TOY_TEXT, seeds=10, episodes=20_000)
        for env in (
            *("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1"),
            *("Taxi-v3", "Taxi-v4", "NChain-v0"),
        )
    ),
    # One hand pays -1, 0 or 1: a mean over few of them says nothing.
    Task("ppo", "Blackjack-v1", TOY_TEXT, seeds=10, episodes=100_000),
    *(Task(algorithm, env, AGENTS, 5) for env in PARTICLES for algorithm in ("ippo", "mappo")),
    *(Task(algorithm, _SPREAD, AGENTS) for algorithm in ("iql", "vdn", "qmix", "pqn_vdn")),
    *(Task(algorithm, _REFERENCE, AGENTS) for algorithm in ("vdn", "qmix")),
    Task("mappo", "smax/3m", AGENTS),
    Task("mappo", "smax/2s3z", AGENTS),
    Task("ippo", "overcooked/cramped_room", AGENTS),
    Task("ippo", "coin_game", AGENTS, 5, label="selfish"),
    Task("ippo", "coin_game", AGENTS, 5, settings=_SHARED, label="cooperative"),
    Task("vdn", "switch_riddle", AGENTS, 5),
    Task("mappo", "hanabi/small-2p", AGENTS),
    Task("ppo", "LunarLander-v3", OUTSIDE, 5, 100, apart=True),
    Task("ppo", "HalfCheetah-v5", OUTSIDE, 3, 32, apart=True),
]
BY_NAME = {task.name: task for task in TASKS}

PEER_ENVS = (*PARTICLES, "smax/3m")
"""Where the peer is trained beside ours."""

GREEDY_SCORE = {"smax/": "win_rate", "switch_riddle": "win_rate"}
"""What counts where it is not the mean return, by the beginning of an id."""


def score_of(env: str) -> str:
    """What of a policy counts: "return" or "win_rate"."""
    return next((name for start, name in GREEDY_SCORE.items() if env.startswith(start)), "return")


class Reference(NamedTuple):
    """What somebody else's training reached.

    Attributes:
        value: a mean return.
        by: whose, with what and after how many steps.
        source: where the figure stands: a key of SOURCES.
        note: what makes it another thing than ours; "" if nothing does.
    """

    value: float
    by: str
    source: str
    note: str = ""


SOURCES = {
    "RL-Zoo": "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md",
    "CleanRL": "https://docs.cleanrl.dev/rl-algorithms/ppo/",
    "gymnax": "https://github.com/RobertTLange/gymnax#implemented-accelerated-environments-%EF%B8%8F",
}

REFERENCES: dict[str, list[Reference]] = {
    "CartPole-v1": [
        Reference(500.0, "PPO, 100 k", "RL-Zoo"),
        Reference(488.75, "PPO, 500 k", "CleanRL"),
        Reference(500.0, "PPO or ES", "gymnax"),
    ],
    "Acrobot-v1": [
        Reference(-73.506, "PPO, 1 M", "RL-Zoo"),
        Reference(-82.48, "PPO, 500 k", "CleanRL"),
        Reference(-80.0, "PPO or ES", "gymnax"),
    ],
    "MountainCar-v0": [
        Reference(-110.423, "PPO, 1 M", "RL-Zoo"),
        Reference(-200.0, "PPO, 500 k", "CleanRL"),
        Reference(-118.0, "PPO or ES", "gymnax"),
    ],
    "MountainCarContinuous-v0": [
        Reference(88.343, "PPO, 20 k", "RL-Zoo"),
        Reference(92.0, "PPO or ES", "gymnax"),
    ],
    "Pendulum-v1": [
        Reference(-172.225, "PPO, 100 k", "RL-Zoo"),
        Reference(-130.0, "PPO or ES", "gymnax"),
    ],
    "Catch-v0": [Reference(1.0, "PPO or ES", "gymnax")],
    "LunarLander-v3": [Reference(242.119, "PPO, 1 M", "RL-Zoo", "of LunarLander-v2")],
    "HalfCheetah-v5": [
        Reference(1443.0, "PPO, 1 M", "CleanRL", "of HalfCheetah-v4"),
        Reference(5819.099, "PPO, 1 M", "RL-Zoo", "of HalfCheetah-v3, state-dependent exploration"),
    ],
}
"""By environment, whatever trains there."""

BEST = {
    "Blackjack-v1": -0.0431,
    "CartPole-v0": 200.0,
    "CartPole-v1": 500.0,
    "Catch-v0": 1.0,
    "CliffWalking-v1": -13.0,
    "CliffWalkingSlippery-v1": -64.7,
    # Policies do not see how much time is left; with it 0.744 and 0.913 would be possible.
    "FrozenLake-v1": 0.7402,
    "FrozenLake8x8-v1": 0.8936,
    "NChain-v0": 3666.0,
    "Taxi-v3": 7.93,
    "Taxi-v4": 7.93,
    # In the others three prisoners are not all called within six days.
    "switch_riddle": 1 - 3 * (2 / 3) ** 6 + 3 * (1 / 3) ** 6,
    "hanabi/small-2p": 10.0,
    "smax/3m": 1.0,
    "smax/2s3z": 1.0,
}
"""What no policy can exceed on average: by the rules, or by dynamic programming over the states."""

_EASIER = (
    "No algorithm of RL-Zoo gets above -151.9 (TD3, 750 episodes), so that the episodes behind that "
    "figure may have been easier ones than usual."
)
WHY = {("Pendulum-v1", "gymnax"): _EASIER}
"""What is known of why a reference is not reached, by environment and source."""
