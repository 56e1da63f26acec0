"""Self-play of two sides: each learns, by PPO, against past selves of the other.

Past policies are kept in a pool and rated by the games they play (Elo, "The Rating of Chessplayers",
1978). Playing against many past selves, instead of the present one only, keeps learning from going round
in circles (Bansal et al., "Emergent Complexity via Multi-Agent Competition", 2018).

Letters in shapes: N environments, A agents, P policies of the pool.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.algorithms.agents_ppo import AgentsCarried, AgentsPPO, AgentsPPOConfig, Drawn
from kiloworlds.algorithms.experience import AgentsExperience, AgentsSeen, Team
from kiloworlds.core.checks import require_choice, require_number
from kiloworlds.core.errors import InvalidValueError

_FIRST_RATING = 1000.0
_RATING_STEP = 16.0
"""How far one surprising result moves a rating."""


@dataclass(frozen=True)
class SelfPlayConfig(AgentsPPOConfig):
    """Settings of self-play."""

    pool_size: int = 16
    """Past policies kept of each side."""
    snapshot_interval: int = 20
    """Updates between two policies that go into the pool."""
    num_opponents: int = 4
    """Opponents of each side at a time: its environments are shared out among them."""
    opponents: str = "hard"
    """How opponents are drawn from the pool: "uniform", or "hard": those the more often that win the
    more (Vinyals et al. 2019)."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("pool_size", "snapshot_interval", "num_opponents"):
            require_number(name, getattr(self, name), 1, whole=True)
        require_choice("opponents", self.opponents, ("uniform", "hard"))

    def check_num_envs(self, num_envs: int) -> None:
        """Raises InvalidValueError for environments that cannot be shared out evenly."""
        each = 2 * self.num_opponents
        if num_envs % each:
            below = max(each, num_envs - num_envs % each)
            raise InvalidValueError(
                f"num_envs={num_envs} cannot be shared out among num_opponents={self.num_opponents} of "
                f"each side; the nearest that can is {below}."
            )


class SelfPlayState(NamedTuple):
    """All that is learnt, and the pool.

    Attributes:
        learner: of both sides.
        pool: the policies of each side, by name, `[P, ...]`.
        ratings: of the pools, `[2, P]`.
        own_ratings: of the policies that learn, `[2]`.
        shares_won: of the points against the pool, in the last rollout in which games ended, `[2]`.
        opponents: numbers in the pool of the other side that each side plays against, `[2, opponents]`.
        updates: how many there were.
    """

    learner: dict[str, Any]
    pool: dict[str, Any]
    ratings: Float[Array, "2 P"]
    own_ratings: Float[Array, " 2"]
    shares_won: Float[Array, " 2"]
    opponents: Int[Array, "2 opponents"]
    updates: Int[Array, ""]


class SelfPlayCarried(NamedTuple):
    """What goes on from one rollout into the next: of the learner, and the running games' scores."""

    learner: AgentsCarried
    score: Float[Array, "N 2"]


class SelfPlay:
    """The pure functions of self-play.

    In one half of the environments the first side learns and the second is played by its past selves,
    in the other half it is the other way round. Each half is shared out among `num_opponents` of them.

    Args:
        config: the settings.
        team: the agents, of two kinds: the sides.
        environment_axis, network_axis: see `PPO`; environments cannot be spread.

    Raises:
        InvalidValueError: not two kinds of agents.
    """

    replays: ClassVar[bool] = False

    def __init__(self, config: SelfPlayConfig, team: Team, **axes: Any):
        if len(team.kinds) != 2:
            names = ", ".join(repr(kind.name) for kind in team.kinds)
            raise InvalidValueError(
                f"self_play needs two kinds of agents, the sides, and there "
                f"{'is' if len(team.kinds) == 1 else 'are'} {len(team.kinds)}: {names}; 'ippo' trains "
                "any number of kinds."
            )
        if axes.get("environment_axis") is not None:
            raise InvalidValueError(
                "self_play does not spread its environments over devices; use devices=1, or train "
                "several seeds: each device takes some of them."
            )
        self.config = config
        self._ppo = AgentsPPO(config, team, **axes)
        self.layout = self._ppo.layout
        self._size = config.pool_size

    def init(self, key: Key[Array, ""]) -> SelfPlayState:
        """Fresh policies, which are also the first of the pool."""
        learner = self._ppo.init(key)
        pool = jax.tree.map(
            lambda leaf: jnp.zeros((self._size, *leaf.shape), leaf.dtype).at[0].set(leaf),
            self._ppo.policy(learner),
        )
        ratings = jnp.full((2, self._size), _FIRST_RATING)
        nobody = jnp.zeros((2, self.config.num_opponents), jnp.int32)
        even = jnp.full(2, 0.5)
        return SelfPlayState(learner, pool, ratings, ratings[:, 0], even, nobody, jnp.int32(0))

    def begin(self, num_envs: int) -> dict[str, Any]:
        """The memory before the first step."""
        return self._ppo.begin(num_envs)

    def carry(self, num_envs: int, experience: AgentsExperience) -> SelfPlayCarried:
        """What learning carries on, before the first rollout."""
        return SelfPlayCarried(self._ppo.carry(num_envs, experience), jnp.zeros((num_envs, 2)))

    def policy(self, state: SelfPlayState, progress: Any = None) -> tuple[Any, Any]:
        """What acting needs: the policies that learn, and while they do their opponents'."""
        own = self._ppo.policy(state.learner)
        if progress is None:
            return own, None
        first, second = self.layout.names
        # A side's opponents are past selves of the other side.
        against = {second: state.opponents[0], first: state.opponents[1]}
        frozen = {
            name: jax.tree.map(lambda leaf, name=name: leaf[against[name]], state.pool[name])
            for name in self.layout.names
        }
        return own, frozen

    def _is_frozen(self, num_envs: int) -> dict[str, Bool[Array, " N"]]:
        """In which environments each side is played by its past selves."""
        late = jnp.arange(num_envs) >= num_envs // 2
        first, second = self.layout.names
        return {first: late, second: ~late}

    def act(
        self,
        policy: tuple[Any, Any],
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: dict[str, Any],
        greedy: bool = False,
    ) -> tuple[PyTree, Drawn, dict[str, Any]]:
        """Chooses actions for all agents.

        Raises:
            InvalidValueError: environments that cannot be shared out evenly.
        """
        own, frozen = policy
        own_key, frozen_key = jax.random.split(key)
        actions, drawn, after = self._ppo.act(own, own_key, seen, memory, greedy)
        if frozen is None:
            return actions, drawn, after
        num_envs, groups = seen.alive.shape[0], self.config.num_opponents
        self.config.check_num_envs(num_envs)

        def grouped(leaf):  # the share of one opponent of each side, in both halves
            halves = leaf.reshape(2, groups, -1, *leaf.shape[1:])
            return jnp.moveaxis(halves, 1, 0).reshape(groups, -1, *leaf.shape[1:])

        def apart(leaf):
            halves = leaf.reshape(groups, 2, -1, *leaf.shape[2:])
            return jnp.moveaxis(halves, 1, 0).reshape(num_envs, *leaf.shape[2:])

        def play(policy, key, seen, memory):
            return self._ppo.act(policy, key, seen, memory, greedy)

        keys = jax.random.split(frozen_key, groups)
        played = jax.vmap(play)(frozen, keys, *jax.tree.map(grouped, (seen, memory)))
        other_actions, _, other_after = jax.tree.map(apart, played)
        actions, other_actions = map(self.layout.blocks, (actions, other_actions))
        for name, is_frozen in self._is_frozen(num_envs).items():
            actions[name] = _where(is_frozen, other_actions[name], actions[name])
            after[name] = _where(is_frozen, other_after[name], after[name])
        return self.layout.joined(actions), drawn, after

    def settle(self, policy: tuple[Any, Any], drawn: Drawn) -> Drawn:
        """See `AgentsPPO.settle`; what frozen policies did is not learnt from."""
        return self._ppo.settle(policy[0], drawn)

    def forget(
        self,
        memory: dict[str, Any],
        finished: Bool[Array, "N A"],
        episode_finished: Bool[Array, " N"],
    ) -> dict[str, Any]:
        """Clears the memory of agents whose own part, or whose episode, is over."""
        return self._ppo.forget(memory, finished, episode_finished)

    def update(
        self,
        state: SelfPlayState,
        experience: AgentsExperience,
        carried: SelfPlayCarried,
        key: Key[Array, ""],
        progress: Float[Array, ""],
    ) -> tuple[SelfPlayState, SelfPlayCarried, dict[str, Array]]:
        """Learns from one rollout, rates the policies, and chooses the next opponents."""
        learn_key, opponent_key = jax.random.split(key)
        num_envs = experience.episode_finished.shape[1]
        learns = jnp.concatenate(
            [
                jnp.repeat(~is_frozen[:, None], size, 1)
                for is_frozen, size in zip(
                    self._is_frozen(num_envs).values(), self.layout.sizes, strict=True
                )
            ],
            axis=1,
        )
        seen = experience.seen._replace(alive=experience.seen.alive & learns)
        learner, learner_carried, metrics = self._ppo.update(
            state.learner,
            experience._replace(seen=seen),
            carried.learner,
            learn_key,
            progress,
        )
        score, wins, games = self._results(experience, carried.score)
        state = self._rate(state._replace(learner=learner), wins, games)
        state = self._keep_snapshot(state)
        state = state._replace(
            opponents=self._choose_opponents(state, opponent_key), updates=state.updates + 1
        )
        for side, name in enumerate(self.layout.names):
            metrics[f"elo/{name}"] = state.own_ratings[side]
            metrics[f"wins_against_pool/{name}"] = state.shares_won[side]
        return state, SelfPlayCarried(learner_carried, score), metrics

    def _results(
        self, experience: AgentsExperience, score: Float[Array, "N 2"]
    ) -> tuple[Array, Float[Array, "2 opponents"], Float[Array, "2 opponents"]]:
        """The running games' scores; and of each side against each of its opponents the games that
        ended and the points won: 1 for a higher return than the other side's, a half for an equal one.
        """
        own = experience.own_reward  # hints win no games
        rewards = self.layout.split(experience.reward if own is None else own, 2)
        rewards = jnp.stack([rewards[name].mean(-1) for name in self.layout.names], -1)

        def add(score, step):
            reward, over = step
            score = score + reward
            return jnp.where(over[:, None], 0.0, score), score

        score, scores = jax.lax.scan(add, score, (rewards, experience.episode_finished))
        ahead = scores[..., 0] - scores[..., 1]
        points = jnp.where(ahead > 0, 1.0, jnp.where(ahead < 0, 0.0, 0.5))
        over = experience.episode_finished.astype(jnp.float32)
        won, games = (over * points).sum(0), over.sum(0)
        parts = (2, self.config.num_opponents, -1)
        games, won = games.reshape(parts).sum(-1), won.reshape(parts).sum(-1)
        return score, jnp.stack((won[0], games[1] - won[1])), games

    def _rate(
        self,
        state: SelfPlayState,
        wins: Float[Array, "2 opponents"],
        games: Float[Array, "2 opponents"],
    ) -> SelfPlayState:
        """Moves ratings towards those that would have predicted the results."""
        own, ratings = state.own_ratings, state.ratings
        played = games.sum(1)
        share = wins.sum(1) / jnp.maximum(played, 1.0)
        state = state._replace(shares_won=jnp.where(played > 0, share, state.shares_won))
        for side in range(2):
            other = 1 - side
            theirs = ratings[other, state.opponents[side]]
            expected = expected_score(own[side], theirs)
            surprise = wins[side] / jnp.maximum(games[side], 1.0) - expected
            change = jnp.where(games[side] > 0, _RATING_STEP * surprise, 0.0)
            ratings = ratings.at[other, state.opponents[side]].add(-change)
            own = own.at[side].add(change.mean())
        return state._replace(own_ratings=own, ratings=ratings)

    def _keep_snapshot(self, state: SelfPlayState) -> SelfPlayState:
        """Puts the present policies into the pool, in place of the oldest, when it is time."""
        number = state.updates + 1
        is_time = number % self.config.snapshot_interval == 0
        place = (number // self.config.snapshot_interval) % self._size

        def put(kept, new):
            return jnp.where(is_time, kept.at[place].set(new), kept)

        pool = jax.tree.map(put, state.pool, self._ppo.policy(state.learner))
        ratings = put(state.ratings.T, state.own_ratings).T
        return state._replace(pool=pool, ratings=ratings)

    def _choose_opponents(
        self, state: SelfPlayState, key: Key[Array, ""]
    ) -> Int[Array, "2 opponents"]:
        taken = (state.updates + 1) // self.config.snapshot_interval + 1
        is_there = jnp.arange(self._size) < taken
        theirs = state.ratings[::-1]
        losing = 1.0 - expected_score(state.own_ratings[:, None], theirs)
        weight = losing if self.config.opponents == "hard" else jnp.ones_like(losing)
        logits = jnp.where(is_there, jnp.log(weight + 1e-3), -jnp.inf)
        shape = (self.config.num_opponents, *logits.shape)
        noise = jax.random.gumbel(key, shape)
        return jnp.argmax(logits + noise, -1).astype(jnp.int32).T


def expected_score(own: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
    """The share of points that Elo ratings predict against another."""
    return 1.0 / (1.0 + 10.0 ** ((other - own) / 400.0))


def _where(mask: Bool[Array, " N"], yes: Array | None, no: Array | None) -> Array | None:
    if yes is None or no is None:
        return None
    return jnp.where(mask.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def self_play(config: SelfPlayConfig, team: Team, **axes: Any) -> SelfPlay:
    """Two sides that learn against each other's past selves."""
    return SelfPlay(config, team, **axes)
