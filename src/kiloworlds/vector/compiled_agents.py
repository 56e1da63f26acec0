"""The executor for compiled environments of several agents: a vector with an agent axis.

Letters used in shapes: N environments, A agents, K agents of one kind, n actions.
"""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Array, Float, PyTree

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import MultiAgentEnvironment, check_kinds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.compiled import CompiledVectorEnv, Outcome
from kiloworlds.vector.functional import VectorState
from kiloworlds.vector.pettingzoo.layout import AgentKind, AgentLayout


class CompiledAgentsVectorEnv(CompiledVectorEnv):
    """Runs `num_envs` copies of a compiled environment of several agents.

    It has the interface of `PettingZooVectorEnv`. Agents lie on the second axis, in the order of
    `possible_agents`: observations and actions are `[N, A, ...]`, rewards and flags `[N, A]`. Agents of
    several kinds lie in one block per kind: observations, actions and action masks are then
    dictionaries of `[N, K, ...]`, keyed by kind.

    An agent's `terminated` is set when it dies or the task ends, its `truncated` when the episode is cut
    off while it lives; both stay set until the episode is over. An agent that is out observes zeros; its
    actions are not read.

    Infos, beside those of the environment and each with its mask "_key":
        alive: which agents live, `[N, A]`.
        acting: whose actions the next step reads, `[N, A]`: all that live.
        action_mask: which actions are legal, `[N, A, n]`, where the environment has masks; all True for
            agents that do not act.
        episode: where an episode ended, its returns "r" `[N, A]`, length "l" in steps and seconds "t".
        final_obs, final_info: as of other vectors.

    Args:
        env, num_envs: see `CompiledVectorEnv`.
        check_legal: whether `step` refuses actions outside the masks, naming environment and agent.
            None, the default, checks where `output="numpy"`: with "jax" it would fetch masks and actions
            from the device at each step. Unchecked, the environment decides what an illegal action does.
        **options: see `CompiledVectorEnv`.

    Example:
        >>> import kiloworlds as kw
        >>> envs = kw.make("mpe/simple_spread_v3", num_envs=2)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape, infos["alive"].shape
        ((2, 3, 18), (2, 3))
    """

    env: MultiAgentEnvironment

    def __repr__(self) -> str:
        name = self.spec_id or type(self.env.unwrapped).__name__
        return f"CompiledAgentsVectorEnv({name}, num_envs={self.num_envs}, num_agents={self.num_agents})"

    def __init__(
        self,
        env: MultiAgentEnvironment,
        num_envs: int,
        *,
        check_legal: bool | None = None,
        **options: Any,
    ):
        super().__init__(env, num_envs, **options)
        if check_legal is None:
            check_legal = self._output == "numpy"
        require_flag("check_legal", check_legal)
        self.check_legal = check_legal
        self._layout = _layout(env)
        self._global_state = jax.jit(lambda state: self.functions.agents(state).global_state)

    @property
    def possible_agents(self) -> tuple[str, ...]:
        """The names of the agents, in the order of the agent axis."""
        return self._layout.agents

    @property
    def num_agents(self) -> int:
        """The length of the agent axis, A."""
        return len(self._layout.agents)

    @property
    def kinds(self) -> dict[str, AgentKind]:
        """The kinds of agents: their names, places on the agent axis and spaces."""
        return self._layout.kinds

    @property
    def is_turn_based(self) -> bool:
        """Whether one agent acts at a time: never, all that live act at each step."""
        return False

    @property
    def masks_actions(self) -> bool:
        """Whether the environment says which actions are legal, so that infos carry action masks."""
        state, _ = jax.eval_shape(self.functions.init, jax.random.key(0))
        return jax.eval_shape(self.functions.agents, state).available_actions is not None

    @property
    def global_state_space(self) -> gymnasium.spaces.Box | None:
        """The space of one environment's `global_state`; None where it has none."""
        space = self.env.global_state_space
        return None if space is None else space.to_gymnasium()

    def global_state(self) -> Float[Array, "N ..."] | np.ndarray:
        """What a centralised critic sees of the current states: `[N, ...]`, or `[N, A, ...]` for one
        view per agent.

        Raises:
            WrongCallError: before the first reset.
            InvalidValueError: the environment has none.
        """
        if self.env.global_state_space is None:
            raise InvalidValueError(
                f"{self} has no global state; the observations of all agents stand for it."
            )
        return self._give(self._global_state(self.state))

    def _fork_options(self) -> dict[str, Any]:
        return super()._fork_options() | {"check_legal": self.check_legal}

    def _advance(self, state: VectorState, actions: PyTree) -> tuple[VectorState, Outcome]:
        after, step = self.functions.step(state, actions)
        assert step.agents is not None
        lived, lives = self.functions.agents(state).alive, step.agents.final.alive
        steps = ~step.was_reset[:, None]  # steps that only reset end nobody
        terminated = (step.terminated[:, None] | ~lives) & steps
        truncated = step.truncated[:, None] & lived
        masks = self._masks_in(after)
        return after, Outcome(step._replace(agents=None), terminated, truncated, masks)

    def _masks_in(self, state: VectorState) -> dict[str, PyTree]:
        agents = self.functions.agents(state)
        alive = agents.alive
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            alive &= ~state.finished[:, None]  # no other episode has begun yet
        masks: dict[str, PyTree] = {"alive": alive, "acting": alive}
        if agents.available_actions is not None:
            blocks = self._layout.blocks(agents.available_actions)
            masks["action_mask"] = self._layout.arrange(
                {
                    name: blocks[name] | ~alive[:, kind.indices, None]
                    for name, kind in self._layout.kinds.items()
                }
            )
        return masks

    def _check_actions(
        self, actions: Any, count: int | None = None, env_ids: np.ndarray | None = None
    ) -> Any:
        checked = super()._check_actions(actions, count, env_ids)
        if self.check_legal and "action_mask" in self._masks:
            masks = self._layout.blocks(self._masks["action_mask"])
            blocks = self._layout.blocks(checked)
            for name, kind in self._layout.kinds.items():
                _check_legal(kind, np.asarray(blocks[name]), np.asarray(masks[name]))
        return checked


def _layout(env: MultiAgentEnvironment) -> AgentLayout:
    """The agents of a compiled environment as vectors describe them."""
    check_kinds(env.kinds)
    kinds, first = {}, 0
    for kind in env.kinds:
        action_space = kind.action_space.to_gymnasium()
        discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        kinds[kind.name] = AgentKind(
            kind.name,
            kind.agents,
            tuple(range(first, first + len(kind.agents))),
            kind.observation_space.to_gymnasium(),
            action_space,
            (int(action_space.n),) if discrete else None,
            masks_in_observation=False,
        )
        first += len(kind.agents)
    return AgentLayout(env.possible_agents, kinds, in_blocks=len(kinds) > 1, turn_based=False)


def _check_legal(kind: AgentKind, actions: np.ndarray, masks: np.ndarray) -> None:
    """Refuses actions `[N, K]` outside masks `[N, K, n]`, which are all True for who does not act.

    Raises:
        InvalidValueError: an illegal action, or an agent that has no legal one.
    """
    start = int(kind.action_space.start)  # type: ignore[attr-defined]
    places = actions.astype(np.intp) - start
    flat = masks.reshape(-1, masks.shape[-1])
    legal = flat[np.arange(len(flat)), places.ravel()]
    if legal.all():
        return
    wrong = int(np.argmin(legal))
    index, row = divmod(wrong, actions.shape[1])
    allowed = (np.flatnonzero(flat[wrong]) + start).tolist()
    who = f"environment {index}, agent {kind.agents[row]!r}"
    if not allowed:
        raise InvalidValueError(
            f"{who}: its action mask is all False; an agent that lives needs a legal action in every "
            "state, if only one that does nothing."
        )
    raise InvalidValueError(
        f"{who}: the action {actions[index, row]} is illegal now; legal are "
        f"{', '.join(map(str, allowed))}. infos['action_mask'] tells before each step; "
        "check_legal=False leaves it to the environment."
    )
