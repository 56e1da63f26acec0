"""One step of a run that was trained, made again: what an environment was in, and what it did."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from kiloworlds.core.checks import require_number
from kiloworlds.core.environment import Environment
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.fused_loop import CHUNK, FusedLoop
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.loops.host_state import ENVIRONMENTS
from kiloworlds.training.make_training import make_training
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.resume import SEEN_BY_NOBODY
from kiloworlds.training.run import Run, check_imported
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.arrays import part
from kiloworlds.training.storage.checkpoint import Checkpoint, DamagedCheckpointError
from kiloworlds.training.storage.run_files import read_events, say_on_stderr
from kiloworlds.training.trainer import STATE
from kiloworlds.vector.base import VectorEnv

_ENVIRONMENTS = f"{STATE}{ENVIRONMENTS}/"


class Place(NamedTuple):
    """Where in a run a step is.

    Attributes:
        update: from which rollout was learnt.
        step: of the rollout.
        environment: which took it.
    """

    update: int
    step: int
    environment: int

    @classmethod
    def of(cls, number: int, config: TrainConfig) -> "Place":
        """The place of a step that is counted as `step` in the metrics is: over all environments."""
        update, rest = divmod(number, config.steps_per_update)
        return cls(update, *divmod(rest, config.num_envs))


class Outcome(NamedTuple):
    """What a step led to; `state` is that of the environment after it, None where it tells none."""

    state: PyTree
    observation: PyTree
    reward: Any
    terminated: Any
    truncated: Any
    info: dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """An environment just before a step; a context that gives back what it holds.

    Attributes:
        place: where in the run.
        observation: what was seen.
        action: what was done.
        env: the compiled environment, with its parameters.
        state, key: what `env.step(key, state, action)` took.
        envs: the vector of an environment outside XLA, all of whose environments are at this step.
        actions: what all of them did.
    """

    place: Place
    observation: PyTree
    action: PyTree
    env: Environment | None = None
    state: PyTree = None
    key: Any = None
    envs: VectorEnv | None = None
    actions: PyTree = None
    _close: Callable[[], None] = field(default=lambda: None, repr=False)

    def step(self) -> Outcome:
        """Takes the step. A compiled environment can do so many times, operation by operation, so that
        `print`, debuggers and `jax.debug_nans` see inside."""
        if self.env is not None:
            state, step = self.env.step(self.key, self.state, self.action)
            return Outcome(state, *step)
        assert self.envs is not None
        observations, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        row = self.place.environment
        if terminated[row] or truncated[row]:
            observation = infos["final_obs"][row]
        else:
            observation = jax.tree.map(lambda leaf: leaf[row], observations)
        own = {
            key: jax.tree.map(lambda leaf: leaf[row], value)
            for key, value in infos.items()
            if f"_{key}" in infos and infos[f"_{key}"][row]
        }
        return Outcome(None, observation, rewards[row], terminated[row], truncated[row], own)

    def __enter__(self) -> "Moment":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()


def replay(
    run: Run, step: int | None = None, seed: int = 0, say: Callable[[str], None] = say_on_stderr
) -> Moment:
    """Trains again from the nearest checkpoint to just before a step.

    Updates before it are computed by the program that trained, so they are the same bit by bit on the
    same machine; within the last rollout another program steps, whose last bits may differ.

    Args:
        run: that was trained.
        step: which, counted as in the metrics, over all environments: step number s of update u in
            environment e is (u * num_steps + s) * num_envs + e. None: the first that was recorded to
            give a number that is not finite.
        seed: of the run; counted from 0.
        say: is told in a sentence what is being done.

    Raises:
        InvalidValueError: the run has no such step or seed, or did not record any; or the order of its
            steps depended on the clock.
        RunDirectoryError: no checkpoint is left from which the step can be reached exactly.
    """
    check_imported(run.config["env_id"])
    if step is None:
        step, seed = _first_fault(run)
    require_number("step", step, 0, max(0, _reached(run) - 1), whole=True)
    config = TrainConfig.from_dict(run.settings_at(step))
    if not 0 <= seed < config.num_members:
        raise InvalidValueError(
            f"seed={seed!r} must be one of the run's {config.num_members} trainings, counted from 0."
        )
    place = Place.of(step, config)
    configure_devices(config)
    made = make_training(config)
    try:
        training = _that_stands_still(made)
        state = _state_at(training, run, config, place.update, say)
        if isinstance(training, FusedLoop):
            return _compiled(training, state, seed, place)
        return _outside(training, state, place)
    except BaseException:  # Ctrl-C too: workers must not outlive it
        made.close()
        raise


def _reached(run: Run) -> int:
    """How many steps the run has."""
    rows = run.metrics.get("step", np.zeros(0))
    return max(run.steps, int(rows[-1]) if rows.size else 0)


def _first_fault(run: Run) -> tuple[int, int]:
    for event in read_events(run.path):
        if event["event"] == "nonfinite" and "at_step" in event:
            return event["at_step"], event["seed"] - run.config["seed"]
    raise InvalidValueError(
        f"{str(run.path)!r} recorded no number of an environment that is not finite; say which step to "
        "make again."
    )


def _state_at(
    training: Any, run: Run, config: TrainConfig, update: int, say: Callable[[str], None]
) -> Any:
    """The state before an update, the environments included."""
    base = _base(training, run, config, update)
    wanted = update * config.steps_per_update
    start = "its beginning" if base is None else f"its checkpoint of step {base.step:,}"
    say(f"trains again from {start} to step {wanted:,}.")
    if base is None:
        state, done = training.init(), 0
    else:
        state, done = training.restore(part(base.arrays, STATE), lambda words: None)
    while done < update:
        state, metrics = training.run(state, min(CHUNK, update - done))
        done += metrics.episodes.ended.shape[1]
    return state


def _base(
    training: FusedLoop | HostTraining, run: Run, config: TrainConfig, update: int
) -> Checkpoint | None:
    """The checkpoint to begin from; None where that is the run's beginning.

    Raises:
        RunDirectoryError: something happened after it that does not happen again by itself.
    """
    wanted = update * config.steps_per_update
    events = read_events(run.path)
    saves = isinstance(training, FusedLoop) or training.saves_environments
    begun, why = 0, ""
    for event in reversed([event for event in events if event["event"] == "resumed"]):
        changed = event.get("settings", {}).keys() - SEEN_BY_NOBODY
        if event["step"] <= wanted and (changed or not saves):
            begun = event["step"]
            why = "settings changed" if changed else "episodes started over"
            break
    store = run.checkpoints
    for step in reversed(store.steps()):
        # Where environments are not saved, episodes started over when the run went on, and only then.
        if not begun <= step <= wanted or not (saves or step == begun):
            continue
        try:
            base = store.load(step)
        except DamagedCheckpointError:
            continue
        # One of a moment when states could not be saved begins new episodes.
        if isinstance(training, FusedLoop) or step == begun or part(base.arrays, _ENVIRONMENTS):
            break
    else:
        base = None
    reached = base.step if base else 0
    late = [e for e in events if e["event"] == "rolled back" and reached < e["at_step"] <= wanted]
    if late or begun > reached:
        what = "seeds went back to a checkpoint" if late else why
        where = late[0]["at_step"] if late else begun
        raise RunDirectoryError(
            f"step {wanted} of {str(run.path)!r} cannot be made again: {what} at step {where}, and no "
            "checkpoint between the two is left. Train with keep_checkpoint_every to have some."
        )
    return base


def _compiled(training: FusedLoop, state: Any, seed: int, place: Place) -> Moment:
    environments, observations, actions, keys = training.at_step(state, place.step)

    def own(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[seed, place.environment], tree)

    env = training.environment_with(own(environments.parameters))
    return Moment(
        place,
        own(observations),
        own(actions),
        env,
        own(environments.environments),
        keys[seed, place.environment],
    )


def _that_stands_still(training: Any) -> FusedLoop | HostTraining:
    """The training, if its environments stand still at a step.

    Raises:
        InvalidValueError: they do not.
    """
    if isinstance(training, FusedLoop):
        return training
    if isinstance(training, HostTraining) and training.takes_turns:
        return training
    raise InvalidValueError(
        "a single step can be made again where one agent acts and environments wait for each other; "
        "not with max_staleness or batch_size, nor for several agents outside XLA."
    )


def _outside(training: HostTraining, state: Any, place: Place) -> Moment:
    observations, actions = training.at_step(state, place.step)
    row = place.environment
    return Moment(
        place,
        jax.tree.map(lambda leaf: np.copy(leaf[row]), observations),
        actions[row],
        envs=training.envs,
        actions=actions,
        _close=training.close,
    )
