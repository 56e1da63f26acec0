"""Steps many MuJoCo simulations of one model on several threads.

Two ways, with equal results: MuJoCo's own batch (version 4 and newer), which is faster for small
models, and one MjData per simulation on Python threads, which can also compute contact forces.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Fields = dict[str, np.ndarray]

_FIELD = "field/"


class Physics(ABC):
    """`N` simulations of one model.

    Attributes:
        fields: MjData's fields by name, each `[N, ...]`, as the last call left them. As in MuJoCo,
            what is derived from the state lags one substep behind it after `step`.
    """

    fields: Fields

    @abstractmethod
    def step(self, rows: np.ndarray, controls: np.ndarray, substeps: int) -> None:
        """Steps the simulations `rows` `[B]` under `controls` `[B, nu]`."""

    @abstractmethod
    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Resets the simulations `rows` `[B]` and sets their positions and velocities `[B, n]`."""

    @abstractmethod
    def get_state(self) -> Fields:
        """All that determines how the simulations go on, copies."""

    @abstractmethod
    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The opposite."""

    def _saved_fields(self) -> Fields:
        """The fields: what is derived from the state lags behind it, so it is not made again."""
        return {f"{_FIELD}{name}": values.copy() for name, values in self.fields.items()}

    def _restore_fields(self, state: Mapping[str, np.ndarray]) -> None:
        for name, values in self.fields.items():
            values[:] = state[f"{_FIELD}{name}"]

    def read(self, rows: np.ndarray) -> Fields:
        """The fields of `rows` `[B]`: copies, or live views where `rows` are all in order."""
        if len(rows) == len(self.fields["qpos"]) and (rows[:-1] < rows[1:]).all():
            return self.fields
        return {name: values[rows] for name, values in self.fields.items()}

    @abstractmethod
    def close(self) -> None:
        """Ends the threads."""


def make_physics(
    model: Any, num_envs: int, num_threads: int, names: Sequence[str], contact_forces: bool
) -> Physics:
    """The fastest physics that gives what is asked for.

    Args:
        model: the MjModel.
        num_envs: how many simulations.
        num_threads: threads to step them on, the caller's among them.
        names: the fields of MjData to be read.
        contact_forces: whether "cfrc_ext" must be current after each step.
    """
    if not contact_forces:
        try:
            from mujoco.batch import Batch

            return BatchPhysics(Batch(model, num_envs, num_threads), names)
        except (ImportError, ValueError):  # MuJoCo 3, or a model that a batch does not run
            pass
    return ThreadPhysics(model, num_envs, num_threads, names, contact_forces)


class BatchPhysics(Physics):
    """Simulations in MuJoCo's batch: its threads, and arrays over all simulations.

    Args:
        batch: a `mujoco.batch.Batch`.
        names: the fields of MjData to be read.
    """

    def __init__(self, batch: Any, names: Sequence[str]):
        mujoco: Any = importlib.import_module("mujoco")
        self._batch: Any = batch
        self.fields = {name: batch.bind(name) for name in names}
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._controls = batch.bind("ctrl")
        batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        # What `mj_resetData` leaves, all that a simulation is: to copy it is faster than a reset.
        self._blank = batch.state[0].copy()

    def step(self, rows: np.ndarray, controls: np.ndarray, substeps: int) -> None:
        self._controls[rows] = controls
        self._batch.step(np.sort(rows), substeps)

    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self._batch.state[rows] = self._blank
        self._qpos[rows], self._qvel[rows] = qpos, qvel
        self._batch.forward(np.sort(rows))

    def get_state(self) -> Fields:
        return {"state": np.array(self._batch.state), **self._saved_fields()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._batch.state[:] = state["state"]
        self._restore_fields(state)

    def close(self) -> None:
        self._batch = None  # which ends its threads


class ThreadPhysics(Physics):
    """One MjData per simulation, stepped on Python threads: MuJoCo runs outside Python's lock.

    Args: see `make_physics`.
    """

    def __init__(
        self,
        model: Any,
        num_envs: int,
        num_threads: int,
        names: Sequence[str],
        contact_forces: bool,
    ):
        mujoco: Any = importlib.import_module("mujoco")
        self._mujoco, self._model, self._contact_forces = mujoco, model, contact_forces
        self._data = [mujoco.MjData(model) for _ in range(num_envs)]
        self._controls = [data.ctrl for data in self._data]
        self._views = {name: [getattr(data, name) for data in self._data] for name in names}
        self.fields = {name: np.stack(views) for name, views in self._views.items()}
        self._helpers = ThreadPoolExecutor(num_threads - 1) if num_threads > 1 else None
        self._num_helpers = num_threads - 1

    def step(self, rows: np.ndarray, controls: np.ndarray, substeps: int) -> None:
        # Threads take the next simulation when they are done with one: some take longer.
        work = iter(list(zip(rows.tolist(), controls, strict=True)))
        helping = (
            []
            if self._helpers is None
            else [
                self._helpers.submit(self._step_some, work, substeps)
                for _ in range(min(self._num_helpers, len(rows) - 1))
            ]
        )
        self._step_some(work, substeps)
        for helper in helping:
            helper.result()
        self._gather(rows)

    def _step_some(self, work: Iterator[tuple[int, np.ndarray]], substeps: int) -> None:
        step, contact_forces = self._mujoco.mj_step, self._mujoco.mj_rnePostConstraint
        for row, controls in work:
            data = self._data[row]
            self._controls[row][:] = controls
            step(self._model, data, substeps)
            if self._contact_forces:
                contact_forces(self._model, data)

    def reset(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        for row, positions, velocities in zip(rows.tolist(), qpos, qvel, strict=True):
            data = self._data[row]
            self._mujoco.mj_resetData(self._model, data)
            data.qpos[:], data.qvel[:] = positions, velocities
            self._mujoco.mj_forward(self._model, data)
        self._gather(rows)

    def get_state(self) -> Fields:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        states = np.empty((len(self._data), self._mujoco.mj_stateSize(self._model, kind)))
        for data, values in zip(self._data, states, strict=True):
            self._mujoco.mj_getState(self._model, data, values, kind)
        return {"state": states, **self._saved_fields()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        for data, values in zip(self._data, state["state"], strict=True):
            self._mujoco.mj_setState(self._model, data, values, kind)
        self._restore_fields(state)

    def _gather(self, rows: np.ndarray) -> None:
        chosen = rows.tolist()
        for name, views in self._views.items():
            parts = [views[row] for row in chosen]
            values = self.fields[name]
            values[rows] = np.concatenate(parts).reshape(len(rows), *values.shape[1:])

    def close(self) -> None:
        if self._helpers is not None:
            self._helpers.shutdown(wait=True)
