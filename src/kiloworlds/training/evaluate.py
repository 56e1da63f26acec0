"""Playing whole episodes with a trained policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kiloworlds.core.checks import require_count
from kiloworlds.core.statistics import bootstrap_interval
from kiloworlds.training.algorithms import team_of
from kiloworlds.training.evaluate_compiled import CompiledEvaluation
from kiloworlds.training.policy import Policy
from kiloworlds.vector.compiled import CompiledVectorEnv

if TYPE_CHECKING:
    from kiloworlds.training.agents_policy import AgentsPolicy
    from kiloworlds.training.run import Run


EVALUATION_SEED = 10_000
"""Of the first environment, unless another is asked for."""


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy, or of the policies of several agents.

    Attributes:
        returns, lengths: one entry per episode; the return of several agents is their mean.
        cut: how many episodes did not end within `max_steps` and count as far as they went.
        agent_returns: of several agents, each one's return `[episodes, A]`.
        agents: their names.
        won: whether the agents won each episode, where the environment says so.
        mean_return: the mean of `returns`.
        interval: its 95% bootstrap interval.
    """

    returns: np.ndarray
    lengths: np.ndarray
    cut: int = 0
    agent_returns: np.ndarray | None = None
    agents: tuple[str, ...] = ()
    won: np.ndarray | None = None

    @property
    def episodes(self) -> int:
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        interval = bootstrap_interval(self.returns)
        return interval.low, interval.high

    @property
    def win_rate(self) -> float | None:
        """The share of the episodes that were won; None where there is no such thing."""
        return None if self.won is None else float(self.won.mean())


def evaluate(
    run: "Run",
    episodes: int,
    seed: int,
    deterministic: bool = True,
    policy: "Policy | AgentsPolicy | None" = None,
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int = 10_000,
) -> Evaluation:
    """Plays `episodes` whole episodes with a policy of the run, by default that of its first seed.

    `env_kwargs` change parameters of the environment, to see how the policy generalises. Episodes
    are cut after `max_steps`, since a policy may never end one in an environment without a limit.

    Each environment counts only its first episodes, the same number for all (the last round is cut):
    counting whichever ends first would favour short ones.

    Raises:
        InvalidValueError: `env_kwargs` give environments of other agents than those that learnt.
    """
    (evaluation,) = evaluate_all(
        run, episodes, seed, [policy or run.policy], deterministic, env_kwargs, max_steps
    )
    return evaluation


def evaluate_all(
    run: "Run",
    episodes: int,
    seed: int,
    policies: "Sequence[Policy | AgentsPolicy]",
    deterministic: bool = True,
    env_kwargs: dict[str, Any] | None = None,
    max_steps: int = 10_000,
) -> list[Evaluation]:
    """The same of several policies of one run, each in the same environments.

    A policy of one agent plays compiled environments in one program, which is compiled once for all.
    """
    episodes = require_count("episodes", episodes)
    num_envs = min(episodes, 256 if run.environment["backend"] == "compiled" else 8)
    envs = run.make_envs(num_envs, **(env_kwargs or {}))
    try:
        program = None
        if isinstance(policies[0], Policy) and type(envs) is CompiledVectorEnv:
            program = CompiledEvaluation(envs, episodes, policies[0], deterministic, max_steps)
        told = []
        for policy in policies:
            played = None if program is None else program.play(policy, seed)  # type: ignore[arg-type]
            told.append(
                _step_by_step(envs, policy, episodes, seed, deterministic, max_steps)
                if played is None
                else Evaluation(*played)
            )
    finally:
        envs.close()
    return told


def _step_by_step(
    envs: Any,
    policy: "Policy | AgentsPolicy",
    episodes: int,
    seed: int,
    deterministic: bool,
    max_steps: int,
) -> Evaluation:
    num_envs = envs.num_envs
    wanted = np.full(num_envs, episodes // num_envs)
    wanted[: episodes % num_envs] += 1
    seen = np.zeros(num_envs, int)
    agents: tuple[str, ...] = getattr(envs, "possible_agents", ())
    several = bool(agents)
    seen_so_far = _Episodes(num_envs, len(agents) or 1)
    if several:
        policy.check_fits(team_of(envs).kinds)  # type: ignore[union-attr]
        policy.reset()  # type: ignore[union-attr]
    observations, infos = envs.reset(seed=seed)
    cut = 0
    while (seen < wanted).any():
        masks = {"infos": infos} if several else {}
        actions = policy.act(observations, deterministic=deterministic, **masks)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        ended = terminated | truncated
        ended = ended.all(axis=1) if several else ended
        seen_so_far.add(rewards)
        too_long = ~ended & (seen_so_far.lengths >= max_steps)
        over = ended | too_long
        counted = over & (seen < wanted)
        seen_so_far.keep(counted, infos)
        if too_long.any():
            observations, infos = envs.reset(options={"reset_mask": too_long})
            infos["_final_obs"] = over
        cut += int((too_long & counted).sum())
        seen += counted
        seen_so_far.restart(over)
    return seen_so_far.evaluation(cut, agents)


class _Episodes:
    """Adds up rewards, environment by environment, and keeps what ended."""

    def __init__(self, num_envs: int, num_agents: int):
        self.lengths = np.zeros(num_envs, int)
        self._returns = np.zeros((num_envs, num_agents))
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []

    def add(self, rewards: np.ndarray) -> None:
        self._returns += rewards.reshape(self._returns.shape)
        self.lengths += 1

    def keep(self, which: np.ndarray, infos: dict[str, Any]) -> None:
        if which.any():
            won = infos.get("final_info", {}).get("won")
            won = None if won is None else np.array(won)[which]
            self._kept.append((self._returns[which], self.lengths[which], won))

    def restart(self, which: np.ndarray) -> None:
        self._returns[which], self.lengths[which] = 0.0, 0

    def evaluation(self, cut: int, agents: tuple[str, ...]) -> Evaluation:
        returns, lengths, won = zip(*self._kept, strict=True)
        by_agent = np.concatenate(returns)
        says_who_won = any(each is not None for each in won)
        return Evaluation(
            by_agent.mean(axis=1),
            np.concatenate(lengths),
            cut,
            by_agent if agents else None,
            agents,
            np.concatenate(
                [
                    np.zeros(len(ended), bool) if each is None else each  # cut: not won
                    for each, ended in zip(won, lengths, strict=True)
                ]
            )
            if says_who_won
            else None,
        )
