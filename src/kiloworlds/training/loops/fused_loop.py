"""What all fused loops share: seeds, devices, many updates in one call.

Letters in shapes: S seeds, T steps per rollout, N environments, U updates.
"""

import copy
import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from jax.sharding import AxisType, Mesh, PartitionSpec
from jax.stages import Compiled
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops import guard
from kiloworlds.training.loops.guard import Fault
from kiloworlds.training.placement import Axis, choose_placement
from kiloworlds.training.storage.arrays import Arrays, from_arrays, to_arrays
from kiloworlds.vector.functional import VectorFunctions, VectorState, VectorStep, step_keys

CHUNK = 256
"""At most so many updates run per call of the compiled program."""


_KEYS, _UPDATES = "environments/keys", "updates"


class Episodes(NamedTuple):
    """Sums over the episodes that ended in one update; `others` by name, of several agents."""

    ended: Any
    return_sum: Any
    length_sum: Any
    others: dict[str, Any] = {}  # noqa: RUF012


class UpdateMetrics(NamedTuple):
    """What one update reports."""

    episodes: Episodes
    train: dict[str, Float[Array, "..."]]
    fault: Fault


def split_vector_state() -> VectorState:
    """How the environments of all seeds lie on devices that each have a share: on the second axis."""
    split: Any = PartitionSpec(None, Axis.ENVIRONMENTS)
    return VectorState(
        keys=split,
        clock=PartitionSpec(),  # type: ignore[arg-type]
        environments=split,
        parameters=split,
        finished=split,
        episode_return=split,
        episode_length=split,
    )


class FusedLoop:
    """Environments, policies and learning in one compiled program, all seeds side by side.

    Seeds are independent: each has its own networks, environments and keys, and computes what it would
    compute alone, up to rounding. `kiloworlds.training.placement` says what several devices share.

    Args:
        config: the settings.
        env: the compiled environment.
        reference: the same with no batched field (see `CompiledVectorEnv`).
    """

    backend = "compiled"
    algorithm: Any

    def __init__(self, config: TrainConfig, env: Environment, reference: Environment | None = None):
        self.config = config
        placement = choose_placement(config)
        self._axis = placement.axis
        self._mesh = None
        if self._axis is not None:
            devices = np.asarray(jax.devices()[: placement.devices])
            self._mesh = Mesh(devices, (self._axis,), axis_types=(AxisType.Auto,))
        shards = placement.devices if self._axis == Axis.ENVIRONMENTS else 1
        self._num_envs = config.num_envs // shards
        self._vector = VectorFunctions(
            env, reference or env, config.num_envs, AutoresetMode.SAME_STEP
        )
        self._build_algorithm()
        # Inlined, so that what asks for its shapes only and what runs it trace it but once.
        self._one_update = jax.jit(jax.vmap(self._update_of_member), inline=True)
        self._init = jax.jit(
            self._spread(jax.vmap(self._init_of_member), "keys", "keys", gives="state")
        )
        self._run = jax.jit(
            self._spread(
                self._updates,
                "state",
                "number",
                gives=("state", "metrics", "environments", "number"),
            ),
            donate_argnums=0,
        )
        # Not within what runs updates: it holds a reset, and is compiled where it is needed only.
        self._mend = jax.jit(
            self._spread(jax.vmap(self._start_over), "state", "environments", gives="state"),
            donate_argnums=0,
        )

    @property
    def _algorithm_axes(self) -> dict[str, Any]:
        """The device axes as algorithms take them."""
        return {
            "environment_axis": Axis.ENVIRONMENTS if self._axis == Axis.ENVIRONMENTS else None,
            "network_axis": Axis.NETWORKS if self._axis == Axis.NETWORKS else None,
        }

    @abstractmethod
    def _build_algorithm(self) -> None:
        """Makes all that depends on the algorithm's settings: `self.algorithm`, for one."""

    def _init_of_member(self, key: Key[Array, ""], varied: dict[str, Array]) -> Any:
        return self._init_one(key)._replace(varied=varied)

    def _update_of_member(self, state: Any) -> tuple[Any, UpdateMetrics, Bool[Array, " N"]]:
        return self._with_settings(state.varied)._update(state)

    def _with_settings(self, varied: dict[str, Array]) -> "FusedLoop":
        """This loop with a member's own values, which are traced, in place of some settings."""
        if not varied:
            return self
        settings = copy.copy(self.config.settings)
        for name, value in varied.items():  # past the checks, which cannot look at traced values
            object.__setattr__(settings, name, value)
        member = copy.copy(self)
        member.config = dataclasses.replace(self.config, settings=settings, population={})
        member._build_algorithm()
        return member

    @abstractmethod
    def _init_one(self, key: Key[Array, ""]) -> Any:
        """The state of one seed before the first update."""

    @abstractmethod
    def _update(self, state: Any) -> tuple[Any, UpdateMetrics, Bool[Array, " N"]]:
        """One rollout and what is learnt from it; and which environments broke and must start over."""

    @abstractmethod
    def _collect(self, state: Any) -> tuple[Any, PyTree]:
        """A rollout that nothing is learnt from: the state after it, and what it gave."""

    @abstractmethod
    def _start_over(self, state: Any, broken: Bool[Array, " N"]) -> Any:
        """The state with new episodes in these environments."""

    @abstractmethod
    def _actions(self, state: Any) -> PyTree:
        """What is done in the next rollout, `[T, N, ...]`, as environments take it."""

    @abstractmethod
    def _state_on_devices(self) -> Any:
        """How a state lies on devices that each have a share of the environments."""

    def _start_environments(self, key: Key[Array, ""]) -> tuple[VectorState, PyTree]:
        """This device's environments, each with the key of its number among all."""
        first = jnp.uint32(0)
        if self._axis == Axis.ENVIRONMENTS:
            first = jax.lax.axis_index(Axis.ENVIRONMENTS).astype(jnp.uint32) * self._num_envs
        indices = first + jnp.arange(self._num_envs, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        parameters = jax.tree.map(lambda leaf: leaf[indices], self._vector.parameters)
        return self._vector.init_from_keys(keys, parameters)

    def _update_keys(self, key: Key[Array, ""], updates: Int[Array, ""]) -> tuple[Any, Any]:
        """The keys of one update: for acting, which differ between devices, and for learning."""
        act_key, learn_key = jax.random.split(jax.random.fold_in(key, updates))
        if self._axis == Axis.ENVIRONMENTS:
            act_key = jax.random.fold_in(act_key, jax.lax.axis_index(Axis.ENVIRONMENTS))
        return act_key, learn_key

    def _find_fault(self, seen: dict[str, PyTree]) -> tuple[Fault, Bool[Array, " N"]]:
        """What is not finite in a rollout, on any device; and which environments of this device must
        start over. See `guard.find`."""
        fault, broken = guard.find(seen)
        if self._axis == Axis.ENVIRONMENTS:
            fault = guard.over_devices(fault, Axis.ENVIRONMENTS, self._num_envs)
        return fault, broken

    def _over_devices(
        self, episodes: Episodes, metrics: dict[str, Array]
    ) -> tuple[Episodes, dict[str, Array]]:
        """What one update reports, of all devices together."""
        if self._axis == Axis.ENVIRONMENTS:
            episodes = jax.lax.psum(episodes, Axis.ENVIRONMENTS)
            metrics = jax.lax.pmean(metrics, Axis.ENVIRONMENTS)
        return episodes, metrics

    def _spread(self, function: Callable, *takes: str, gives: str | tuple[str, ...]) -> Callable:
        """Runs a function on all devices.

        Args:
            function: of all seeds.
            takes, gives: what its arguments and results are: one of `keys`, `state`, `vector` (the part
                of it that is of the environments), `metrics`, `environments` (`[S, N, ...]`), `steps`
                (`[S, T, N, ...]`), `number` (the same everywhere), `unread` (what nobody looks at).
        """
        if self._mesh is None:
            return function
        everywhere = PartitionSpec()
        specs: dict[str, Any] = dict.fromkeys(
            ("keys", "state", "vector", "metrics", "environments", "steps", "number", "unread"),
            everywhere,
        )
        match self._axis:
            case Axis.SEEDS:
                specs |= dict.fromkeys(
                    ("keys", "state", "vector", "metrics", "environments", "steps"),
                    PartitionSpec(Axis.SEEDS),
                )
            case Axis.ENVIRONMENTS:
                specs["state"], specs["vector"] = self._state_on_devices(), split_vector_state()
                specs["environments"] = PartitionSpec(None, Axis.ENVIRONMENTS)
                specs["steps"] = PartitionSpec(None, None, Axis.ENVIRONMENTS)
            case _:
                pass
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=tuple(specs[name] for name in takes),
            out_specs=specs[gives]
            if isinstance(gives, str)
            else tuple(specs[name] for name in gives),
            check_vma=False,
        )

    def _updates(
        self, state: Any, count: Int[Array, ""]
    ) -> tuple[Any, UpdateMetrics, Bool[Array, "S N"], Int[Array, ""]]:
        """Updates until there are `count` (at most CHUNK), or environments broke in the last.

        The count is a traced value, so one compiled program serves every length.

        Returns:
            The state; metrics `[S, CHUNK]`, of which as many are filled as there were updates; which
            environments broke; the number of updates.
        """
        _, shapes, broken = jax.eval_shape(self._one_update, state)
        metrics = jax.tree.map(
            lambda leaf: jnp.zeros((leaf.shape[0], CHUNK, *leaf.shape[1:]), leaf.dtype), shapes
        )

        def one_update(carry):
            state, metrics, _, _, done = carry
            state, new, broken = self._one_update(state)
            metrics = jax.tree.map(lambda all_, one: all_.at[:, done].set(one), metrics, new)
            return state, metrics, broken, self._on_any_device(broken.any()), done + 1

        def goes_on(carry):
            *_, is_broken, done = carry
            return (done < count) & ~is_broken

        nothing = jnp.zeros(broken.shape, bool)
        state, metrics, broken, _, done = jax.lax.while_loop(
            goes_on, one_update, (state, metrics, nothing, jnp.bool_(False), jnp.int32(0))
        )
        return state, metrics, broken, done

    def _on_any_device(self, is_so: Bool[Array, ""]) -> Bool[Array, ""]:
        """Whether something is so on any of the devices that differ in it."""
        if self._axis in (Axis.SEEDS, Axis.ENVIRONMENTS):
            return jax.lax.pmax(is_so.astype(jnp.int32), self._axis) > 0
        return is_so

    def seed_keys(self) -> Key[Array, " S"]:
        """One key per seed, the same for all entries of a population."""
        members = map(self.config.member, range(self.config.num_members))
        seeds = np.array([seed for _, seed in members], np.uint32)
        return jax.vmap(fast_key)(jnp.asarray(seeds))

    def varied(self) -> dict[str, Float[Array, " S"]]:
        """The settings of which a population has many values: each member's."""
        population = self.config.population.items()
        return {
            name: jnp.repeat(jnp.asarray(values, jnp.float32), self.config.num_seeds)
            for name, values in population
        }

    def init(self) -> Any:
        """The state before the first update; every leaf has a leading seed axis."""
        with ThreadPoolExecutor(1) as background:
            # XLA leaves Python's lock alone, so one program is traced while the other is compiled.
            init = background.submit(self._traced_init.lower().compile)
            _ = self.program
            return self._on_devices(init.result()(self.seed_keys(), self.varied()))

    @functools.cached_property
    def _traced_init(self) -> Any:
        return self._init.trace(jax.eval_shape(self.seed_keys), jax.eval_shape(self.varied))

    @functools.cached_property
    def program(self) -> Compiled:
        """What runs updates, compiled."""
        return self._run.lower(self._traced_init.out_info, jnp.int32(0)).compile()

    def _on_devices(self, state: Any) -> Any:
        return jax.device_put(state, self.program.input_shardings[0][0])

    def save(self, state: Any) -> Arrays:
        """Copies of all that determines how training goes on, on any number of devices."""
        return to_arrays(state)

    def restore(self, arrays: Arrays, say: Callable[[str], None]) -> tuple[Any, int]:
        """The state that `save` gave, and how many updates it had.

        With another number of environments those that are there in both go on, others start, and updates
        are counted as if they had always been as many.

        Args:
            say: hears of environments that start or are left out.

        Raises:
            InvalidValueError: it is of other settings.
        """
        stored = arrays[_KEYS].shape[1] if _KEYS in arrays else self.config.num_envs
        if stored != self.config.num_envs:
            arrays = self._with_other_environments(arrays, stored)
            say(_resized(stored, self.config.num_envs))
        state = from_arrays(self._traced_init.out_info, arrays, "the checkpoint")
        return self._on_devices(state), int(arrays[_UPDATES][0])

    def roll_back(self, state: Any, arrays: Arrays | None, seeds: list[int], number: int) -> Any:
        """The state with some seeds as `save` gave them, and other random numbers from here on.

        Args:
            arrays: of an earlier state (None: the first); the seeds are counted as having had as many
                updates as the others.
            number: of the way back, which random numbers depend on.
        """
        now = self.save(state)
        arrays = self.save(self.init()) if arrays is None else arrays
        if (stored := arrays[_KEYS].shape[1]) != self.config.num_envs:
            arrays = self._with_other_environments(arrays, stored)
        for name, array in now.items():
            if name != _UPDATES:
                array[seeds] = arrays[name][seeds]
        state = from_arrays(self._traced_init.out_info, now, "the checkpoint")
        others = jax.vmap(jax.random.fold_in, (0, None))(state.key, number)
        theirs = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(
            state.environments.keys, number
        )
        is_back = jnp.isin(jnp.arange(self.config.num_members), jnp.array(seeds))
        environments = state.environments._replace(
            keys=jnp.where(is_back[:, None], theirs, state.environments.keys)
        )
        key = jnp.where(is_back, others, state.key)
        return self._on_devices(state._replace(key=key, environments=environments))

    def _with_other_environments(self, arrays: Arrays, stored: int) -> Arrays:
        """Arrays for `num_envs` environments out of those for `stored`."""
        both = min(stored, self.config.num_envs)
        parts = jax.tree_util.tree_leaves_with_path(
            self._state_on_devices(), is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)
        )
        split = tuple(
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, spec in parts
            if Axis.ENVIRONMENTS in spec
        )
        changed = dict(arrays)
        for name, fresh in to_arrays(self.init()).items():
            if name not in arrays or not any(f"{name}/".startswith(f"{part}/") for part in split):
                continue
            if arrays[name].shape[1:2] != (stored,) or fresh.shape[1:2] != (self.config.num_envs,):
                raise InvalidValueError(
                    f"{self.config.algorithm} keeps {name} for {stored} environments: their number "
                    f"cannot change; the nearest valid value is num_envs={stored}."
                )
            fresh[:, :both] = arrays[name][:, :both]
            changed[name] = fresh
        steps = arrays[_UPDATES] * stored / self.config.num_envs
        changed[_UPDATES] = np.round(steps).astype(arrays[_UPDATES].dtype)
        return changed

    def run(
        self, state: Any, count: int, stop: Callable[[], bool] = lambda: False
    ) -> tuple[Any, UpdateMetrics]:
        """Runs `count` updates, or fewer: environments that broke start over before the next.

        `state` is consumed. One program does all: `stop` is not asked.

        Returns:
            The new state and the metrics of the updates as numpy arrays `[S, U]`.
        """
        if not 1 <= count <= CHUNK:
            raise InvalidValueError(f"count={count} must be between 1 and {CHUNK}.")
        state, metrics, broken, done = self.program(state, jnp.int32(count))
        updates = int(done)
        if np.asarray(broken).any():
            state = self._mend(state, broken)
        return state, jax.tree.map(lambda leaf: np.asarray(leaf)[:, :updates], metrics)

    def at_step(
        self, state: Any, step: int
    ) -> tuple[VectorState, PyTree, PyTree, Key[Array, "S N"]]:
        """All environments just before a step of the next rollout.

        Returns:
            Their states, observations, actions and the keys of the step, `[S, N, ...]`.
        """
        spread = self._spread(
            jax.vmap(self._at_step, in_axes=(0, None)),
            "state",
            "number",
            gives=("vector", "environments", "environments", "environments"),
        )
        return jax.jit(spread)(state, jnp.int32(step))

    def _at_step(self, state: Any, step: Int[Array, ""]) -> tuple[VectorState, PyTree, PyTree, Any]:
        actions = self._actions(state)

        def one_step(index, carry):
            environments, result = self._vector.step(
                carry[0], jax.tree.map(lambda leaf: leaf[index], actions)
            )
            return environments, result.observation

        environments, observation = jax.lax.fori_loop(
            0, step, one_step, (state.environments, state.observation)
        )
        now = jax.tree.map(lambda leaf: leaf[step], actions)
        return environments, observation, now, step_keys(environments.keys, environments.clock, 0)

    def environment_with(self, parameters: PyTree) -> Environment:
        """One of the environments, with what is its own."""
        return self._vector.with_parameters(parameters)

    # Parts of an update by themselves, for whoever wants to know how long each takes.

    def actions(self, state: Any) -> PyTree:
        """What is done in the next rollout, `[S, T, N, ...]`."""
        return jax.jit(self._spread(jax.vmap(self._actions), "state", gives="steps"))(state)

    def collecting(self, state: Any) -> Compiled:
        """Compiles `(state, count) -> (state, _)`: rollouts that nothing is learnt from."""
        return self._repeated(jax.vmap(self._collect), state)

    def stepping(self, state: Any, actions: PyTree) -> Compiled:
        """Compiles `(state, count, actions) -> (state, _)`: as many times the steps of a rollout, in
        which the environments take given `actions` `[S, T, N, ...]` and no policy acts."""
        return self._repeated(jax.vmap(self._step_only), state, actions)

    def _repeated(self, one: Callable, state: Any, *given: PyTree) -> Compiled:
        """Compiles many calls of `one(state, *given)` into one program, as training has them; every
        call computes all that it returns beside the state, and the last one's is returned."""

        def run(state, count, *given):
            shapes = jax.eval_shape(one, state, *given)[1]
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            return jax.lax.fori_loop(
                0, count, lambda _, carry: one(carry[0], *given), (state, nothing)
            )

        takes = ("state", "number", *(["steps"] * len(given)))
        spread = self._spread(run, *takes, gives=("state", "unread"))
        return jax.jit(spread, donate_argnums=0).lower(state, jnp.int32(1), *given).compile()

    def _step_only(self, state: Any, actions: PyTree) -> tuple[Any, PyTree]:
        def one_step(carry, action):
            environments, step = self._vector.step(carry[0], action)
            return (environments, step.observation), self._stored(step)

        (environments, observation), steps = jax.lax.scan(
            one_step, (state.environments, state.observation), actions
        )
        return self._moved(state, environments, observation), steps

    def _stored(self, step: VectorStep) -> PyTree:
        """What of a step a rollout stores."""
        return step

    def _moved(self, state: Any, environments: VectorState, observation: PyTree) -> Any:
        """The state with its environments elsewhere."""
        return state._replace(environments=environments, observation=observation)

    def host_metrics(self) -> dict[str, float]:
        """None: everything happens in one program."""
        return {}

    def close(self) -> None:
        """Nothing to give back."""

    def learner(self, state: Any) -> Any:
        """The learner's part of a loop state, `[S, ...]`."""
        return state.learner


def _resized(stored: int, num_envs: int) -> str:
    if num_envs > stored:
        return f"{num_envs - stored} environments start, beside {stored} that go on."
    return f"{stored - num_envs} of {stored} environments are left out; {num_envs} go on."
