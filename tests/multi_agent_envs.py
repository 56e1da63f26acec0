"""PettingZoo environments that vectors run in tests."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv


class RelayEnv(ParallelEnv):
    """Agents `runner_0`, `runner_1`, ... end one after another: runner k in step `k + 1`.

    The last is truncated, the others terminate. Observes the start (drawn at reset), the steps and the
    runner's number, all plus 1; the reward is the action plus ten times the number. `late` says in which
    step runners come that are not there from the start.

    Infos: "left" (int, steps left), "name" (str, of even runners), and "weather" for no agent.
    """

    metadata: ClassVar = {"name": "relay_v0", "render_modes": []}
    render_mode = None

    def __init__(self, runners: int = 3, late: dict[str, int] | None = None, masks: bool = False):
        self.possible_agents = [f"runner_{number}" for number in range(runners)]
        self.late, self.masks = late or {}, masks
        self._observation_space = spaces.Box(-1e6, 1e6, (3,), np.float64)
        self._action_spaces = {agent: spaces.Discrete(4) for agent in self.possible_agents}
        self.random = np.random.default_rng()
        self.seen_actions: list[dict[str, Any]] = []

    def observation_space(self, agent):
        return self._observation_space

    def action_space(self, agent):
        return self._action_spaces[agent]

    def _observe(self) -> dict[str, np.ndarray]:
        return {
            agent: np.array([self.start, self.steps, self.possible_agents.index(agent)]) + 1.0
            for agent in self.agents
        }

    def _infos(self) -> dict[str, dict]:
        infos: dict[str, dict] = {"weather": {"rain": self.steps / 2}}
        for number, agent in enumerate(self.possible_agents):
            if agent in self.agents:
                infos[agent] = {"left": number + 1 - self.steps}
                if number % 2 == 0:
                    infos[agent]["name"] = agent.title()
                if self.masks:
                    infos[agent]["action_mask"] = np.arange(4) <= self.steps + number
        return infos

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps = 0
        self.start = float(self.random.integers(1000)) + 1000 * (options or {}).get("k", 0)
        self.agents = [agent for agent in self.possible_agents if agent not in self.late]
        return self._observe(), self._infos()

    def step(self, actions):
        self.seen_actions.append(actions)
        self.steps += 1
        lived = list(self.agents)
        self.agents += [agent for agent, step in self.late.items() if step == self.steps]
        number = {agent: self.possible_agents.index(agent) for agent in self.agents}
        rewards = {agent: float(actions[agent]) + 10 * number[agent] for agent in lived}
        ended = {agent: self.steps == number[agent] + 1 for agent in self.agents}
        last = self.possible_agents[-1]
        terminations = {agent: over and agent != last for agent, over in ended.items()}
        truncations = {agent: over and agent == last for agent, over in ended.items()}
        observations, infos = self._observe(), self._infos()
        self.agents = [agent for agent in self.agents if not ended[agent]]
        return observations, rewards, terminations, truncations, infos

    def double(self, value: int) -> int:
        """For `call`."""
        return 2 * value

    def close(self):
        pass


class SpoiltRelayEnv(RelayEnv):
    """Changes what `step` and `reset` give, by `spoil(env, results)`."""

    def __init__(self, spoil: Callable[[Any, tuple], Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.spoil = spoil

    def reset(self, seed=None, options=None):
        return self.spoil(self, super().reset(seed, options))

    def step(self, actions):
        return self.spoil(self, super().step(actions))


class CountdownEnv(AECEnv):
    """Players count down in turn from `start`; who reaches a multiple of three drops out.

    The action is how many to take off, less one; every other player then gets as many points. The game
    is over at zero, for all. Observes what is left, and one's own number.
    """

    metadata: ClassVar = {"name": "countdown_v0", "render_modes": [], "is_parallelizable": False}
    render_mode = None

    def __init__(self, players: int = 4, start: int = 14):
        self.possible_agents = [f"player_{number}" for number in range(players)]
        self.start = start
        self._observation_space = spaces.Box(0, 100, (2,), np.int32)
        self._action_space = spaces.Discrete(2)

    def observation_space(self, agent):
        return self._observation_space

    def action_space(self, agent):
        return self._action_space

    def observe(self, agent):
        return np.array([self.left, self.possible_agents.index(agent)], np.int32)

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.left = self.start + (seed or 0) % 2
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.infos = {agent: {"left": self.left} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        taken = int(action) + 1
        self.left = max(self.left - taken, 0)
        self.rewards = {other: 0.0 if other == agent else float(taken) for other in self.agents}
        if self.left == 0:
            self.terminations = dict.fromkeys(self.agents, True)
        elif self.left % 3 == 0 and len(self.agents) > 1:
            self.truncations[agent] = True
        self.infos = {other: {"left": self.left} for other in self.agents}
        self._accumulate_rewards()
        place = self.agents.index(agent)
        others = self.agents[place + 1 :] + self.agents[:place]
        self.agent_selection = others[0] if others else agent
        self._deads_step_first()

    def close(self):
        pass
