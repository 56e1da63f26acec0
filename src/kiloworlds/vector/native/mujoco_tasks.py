"""The rules of Gymnasium's MuJoCo environments, version 5, over many environments at once.

Physics aside, an environment is a reward, an observation, an end and a first state. Each class has
those of one or two of Gymnasium's, in the same order of floating-point operations, so that results
are equal. The parameters are read from one Gymnasium environment, which has checked them.

Source: https://github.com/Farama-Foundation/Gymnasium/tree/main/gymnasium/envs/mujoco
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from kiloworlds.vector.native.mujoco_physics import Fields

Info = dict[str, np.ndarray]
Outcome = tuple[np.ndarray, np.ndarray, Info]  # rewards [B], terminated [B], info of [B, ...]


class Task(ABC):
    """The rules of one environment.

    Args:
        env: one Gymnasium environment of that kind, unwrapped.

    Attributes:
        fields: the fields of MjData that the rules read.
        contact_forces: whether "cfrc_ext" is among them.
    """

    fields: tuple[str, ...] = ("qpos", "qvel")

    def __init__(self, env: Any):
        self.env = env
        self.model = env.model
        self.init_qpos, self.init_qvel = env.init_qpos.copy(), env.init_qvel.copy()
        self.dt = env.dt

    @property
    def contact_forces(self) -> bool:
        return "cfrc_ext" in self.fields

    def before(self, fields: Fields) -> Any:
        """What must be remembered over the step."""
        return None

    @abstractmethod
    def outcome(self, fields: Fields, before: Any, actions: np.ndarray) -> Outcome:
        """Rewards, terminations and infos of a step."""

    @abstractmethod
    def observe(self, fields: Fields) -> np.ndarray:
        """Observations `[B, n]`."""

    def reset_info(self, fields: Fields) -> Info:
        """The infos of a reset."""
        return {}

    @abstractmethod
    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draws the positions `[nq]` and velocities `[nv]` that an episode begins with."""

    def _noise(self, rng: np.random.Generator, size: int) -> np.ndarray:
        scale = self.env._reset_noise_scale
        return rng.uniform(low=-scale, high=scale, size=size)

    def _uniform_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.init_qpos + self._noise(rng, self.model.nq)
        return qpos, self.init_qvel + self._noise(rng, self.model.nv)

    def _normal_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.init_qpos + self._noise(rng, self.model.nq)
        scale = self.env._reset_noise_scale
        return qpos, self.init_qvel + scale * rng.standard_normal(self.model.nv)


class _Planar(Task):
    """Runs along x; the position on x may be left out of the observation."""

    def before(self, fields: Fields) -> np.ndarray:
        return fields["qpos"][:, 0].copy()

    def _x_velocity(self, fields: Fields, before: np.ndarray) -> np.ndarray:
        return (fields["qpos"][:, 0] - before) / self.dt

    def _positions(self, fields: Fields) -> np.ndarray:
        skipped = int(self.env._exclude_current_positions_from_observation)
        return fields["qpos"][:, skipped:]


class HalfCheetah(_Planar):
    """HalfCheetah-v5."""

    def outcome(self, fields: Fields, before: np.ndarray, actions: np.ndarray) -> Outcome:
        velocity = self._x_velocity(fields, before)
        forward = self.env._forward_reward_weight * velocity
        cost = _control_cost(self.env, actions)
        info = {"x_position": fields["qpos"][:, 0], "x_velocity": velocity}
        info |= {"reward_forward": forward, "reward_ctrl": -cost}
        return forward - cost, _never(actions), info

    def observe(self, fields: Fields) -> np.ndarray:
        return np.concatenate([self._positions(fields), fields["qvel"]], axis=1)

    def reset_info(self, fields: Fields) -> Info:
        return {"x_position": fields["qpos"][:, 0]}

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._normal_state(rng)


class Walker2d(_Planar):
    """Walker2d-v5."""

    def outcome(self, fields: Fields, before: np.ndarray, actions: np.ndarray) -> Outcome:
        env, velocity = self.env, self._x_velocity(fields, before)
        healthy = self._is_healthy(fields)
        forward, survive = env._forward_reward_weight * velocity, healthy * env._healthy_reward
        cost = _control_cost(env, actions)
        info = {**self.reset_info(fields), "x_velocity": velocity}
        info |= {"reward_forward": forward, "reward_ctrl": -cost, "reward_survive": survive}
        return (forward + survive) - cost, ~healthy & env._terminate_when_unhealthy, info

    def _is_healthy(self, fields: Fields) -> np.ndarray:
        z, angle = fields["qpos"][:, 1], fields["qpos"][:, 2]
        return _between(z, self.env._healthy_z_range) & _between(
            angle, self.env._healthy_angle_range
        )

    def observe(self, fields: Fields) -> np.ndarray:
        velocities = np.clip(fields["qvel"], -10, 10)
        return np.concatenate([self._positions(fields), velocities], axis=1)

    def reset_info(self, fields: Fields) -> Info:
        height = fields["qpos"][:, 1] - self.init_qpos[1]
        return {"x_position": fields["qpos"][:, 0], "z_distance_from_origin": height}

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._uniform_state(rng)


class Hopper(Walker2d):
    """Hopper-v5: a Walker2d whose whole state must also stay within bounds."""

    def _is_healthy(self, fields: Fields) -> np.ndarray:
        state = np.concatenate([fields["qpos"], fields["qvel"]], axis=1)[:, 2:]
        within = _between(state, self.env._healthy_state_range).all(axis=1)
        return within & super()._is_healthy(fields)


class Swimmer(Task):
    """Swimmer-v5."""

    def before(self, fields: Fields) -> np.ndarray:
        return fields["qpos"][:, :2].copy()

    def outcome(self, fields: Fields, before: np.ndarray, actions: np.ndarray) -> Outcome:
        velocity = (fields["qpos"][:, :2] - before) / self.dt
        forward = self.env._forward_reward_weight * velocity[:, 0]
        cost = _control_cost(self.env, actions)
        info = {**self.reset_info(fields), **_xy("velocity", velocity)}
        info |= {"reward_forward": forward, "reward_ctrl": -cost}
        return forward - cost, _never(actions), info

    def observe(self, fields: Fields) -> np.ndarray:
        return np.concatenate([_without_xy(self.env, fields), fields["qvel"]], axis=1)

    def reset_info(self, fields: Fields) -> Info:
        return _place(fields)

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._uniform_state(rng)


class Ant(Task):
    """Ant-v5."""

    fields = ("qpos", "qvel", "xpos", "cfrc_ext")

    def __init__(self, env: Any):
        super().__init__(env)
        self._body = self.model.body(env._main_body).id

    def before(self, fields: Fields) -> np.ndarray:
        return fields["xpos"][:, self._body, :2].copy()

    def _contact_forces(self, fields: Fields) -> np.ndarray:
        return np.clip(fields["cfrc_ext"], *self.env._contact_force_range)

    def outcome(self, fields: Fields, before: np.ndarray, actions: np.ndarray) -> Outcome:
        env = self.env
        velocity = (fields["xpos"][:, self._body, :2] - before) / self.dt
        low, high = env._healthy_z_range
        height = fields["qpos"][:, 2]
        finite = np.isfinite(fields["qpos"]).all(axis=1) & np.isfinite(fields["qvel"]).all(axis=1)
        healthy = finite & (low <= height) & (height <= high)
        forward = velocity[:, 0] * env._forward_reward_weight
        survive = healthy * env._healthy_reward
        control = _control_cost(env, actions)
        contact = env._contact_cost_weight * _sum_of_squares(self._contact_forces(fields))
        info = {**self.reset_info(fields), **_xy("velocity", velocity)}
        info |= {"reward_forward": forward, "reward_ctrl": -control}
        info |= {"reward_contact": -contact, "reward_survive": survive}
        rewards = (forward + survive) - (control + contact)
        return rewards, ~healthy & env._terminate_when_unhealthy, info

    def observe(self, fields: Fields) -> np.ndarray:
        parts = [_without_xy(self.env, fields), fields["qvel"]]
        if self.env._include_cfrc_ext_in_observation:
            parts.append(_flat(self._contact_forces(fields)[:, 1:]))
        return np.concatenate(parts, axis=1)

    def reset_info(self, fields: Fields) -> Info:
        return _place(fields)

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._normal_state(rng)


class _Humanoid(Task):
    """What the two humanoids share."""

    fields = (
        *("qpos", "qvel", "ctrl", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
        *("ten_length", "ten_velocity"),
    )

    def observe(self, fields: Fields) -> np.ndarray:
        env, parts = self.env, [_without_xy(self.env, fields), fields["qvel"]]
        if env._include_cinert_in_observation is True:
            parts.append(_flat(fields["cinert"][:, 1:]))
        if env._include_cvel_in_observation is True:
            parts.append(_flat(fields["cvel"][:, 1:]))
        if env._include_qfrc_actuator_in_observation is True:
            parts.append(fields["qfrc_actuator"][:, 6:])
        if env._include_cfrc_ext_in_observation is True:
            parts.append(_flat(fields["cfrc_ext"][:, 1:]))
        return np.concatenate(parts, axis=1)

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._uniform_state(rng)

    def _tendons(self, fields: Fields) -> Info:
        return {"tendon_length": fields["ten_length"], "tendon_velocity": fields["ten_velocity"]}


class Humanoid(_Humanoid):
    """Humanoid-v5."""

    def before(self, fields: Fields) -> np.ndarray:
        return self._mass_centre(fields)

    def _mass_centre(self, fields: Fields) -> np.ndarray:
        mass = self.model.body_mass
        return (np.einsum("b,nbj->nj", mass, fields["xipos"]) / mass.sum())[:, :2]

    def outcome(self, fields: Fields, before: np.ndarray, actions: np.ndarray) -> Outcome:
        env = self.env
        velocity = (self._mass_centre(fields) - before) / self.dt
        healthy = _between(fields["qpos"][:, 2], env._healthy_z_range)
        forward = env._forward_reward_weight * velocity[:, 0]
        survive = healthy * env._healthy_reward
        control = env._ctrl_cost_weight * _sum_of_squares(fields["ctrl"])
        contact = env._contact_cost_weight * _sum_of_squares(fields["cfrc_ext"])
        contact = np.clip(contact, *env._contact_cost_range)
        info = {**self.reset_info(fields), **_xy("velocity", velocity)}
        info |= {"reward_survive": survive, "reward_forward": forward}
        info |= {"reward_ctrl": -control, "reward_contact": -contact}
        rewards = (forward + survive) - (control + contact)
        return rewards, ~healthy & env._terminate_when_unhealthy, info

    def reset_info(self, fields: Fields) -> Info:
        return {**_place(fields), **self._tendons(fields)}


class HumanoidStandup(_Humanoid):
    """HumanoidStandup-v5."""

    def outcome(self, fields: Fields, before: None, actions: np.ndarray) -> Outcome:
        env = self.env
        up = (fields["qpos"][:, 2] - 0) / self.model.opt.timestep
        control = env._ctrl_cost_weight * _sum_of_squares(fields["ctrl"])
        impact = env._impact_cost_weight * _sum_of_squares(fields["cfrc_ext"])
        impact = np.clip(impact, *env._impact_cost_range)
        info = {**self.reset_info(fields), "reward_linup": up}
        info |= {"reward_quadctrl": -control, "reward_impact": -impact}
        return up - control - impact + 1, _never(actions), info

    def reset_info(self, fields: Fields) -> Info:
        height = fields["qpos"][:, 2] - self.init_qpos[2]
        place = _xy("position", fields["qpos"])
        return {**place, "z_distance_from_origin": height, **self._tendons(fields)}


class InvertedPendulum(Task):
    """InvertedPendulum-v5."""

    def outcome(self, fields: Fields, before: None, actions: np.ndarray) -> Outcome:
        state = self.observe(fields)
        over = ~np.isfinite(state).all(axis=1) | (np.abs(state[:, 1]) > 0.2)
        rewards = (~over).astype(int)
        return rewards, over, {"reward_survive": rewards}

    def observe(self, fields: Fields) -> np.ndarray:
        return np.concatenate([fields["qpos"], fields["qvel"]], axis=1)

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._uniform_state(rng)


class InvertedDoublePendulum(Task):
    """InvertedDoublePendulum-v5."""

    fields = ("qpos", "qvel", "site_xpos", "qfrc_constraint")

    def outcome(self, fields: Fields, before: None, actions: np.ndarray) -> Outcome:
        x, y = fields["site_xpos"][:, 0, 0], fields["site_xpos"][:, 0, 2]
        first, second = fields["qvel"][:, 1], fields["qvel"][:, 2]
        over = y <= 1
        distance = 0.01 * x**2 + (y - 2) ** 2
        velocity = 1e-3 * first**2 + 5e-3 * second**2
        alive = self.env._healthy_reward * (~over).astype(int)
        info = {"reward_survive": alive}
        info |= {"distance_penalty": -distance, "velocity_penalty": -velocity}
        return alive - distance - velocity, over, info

    def observe(self, fields: Fields) -> np.ndarray:
        angles = fields["qpos"][:, 1:]
        return np.concatenate(
            [
                fields["qpos"][:, :1],
                np.sin(angles),
                np.cos(angles),
                np.clip(fields["qvel"], -10, 10),
                np.clip(fields["qfrc_constraint"], -10, 10)[:, :1],
            ],
            axis=1,
        )

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._normal_state(rng)


class Reacher(Task):
    """Reacher-v5."""

    fields = ("qpos", "qvel", "xpos")

    def __init__(self, env: Any):
        super().__init__(env)
        self._fingertip, self._target = (
            self.model.body(name).id for name in ("fingertip", "target")
        )

    def _to_target(self, fields: Fields) -> np.ndarray:
        return fields["xpos"][:, self._fingertip] - fields["xpos"][:, self._target]

    def outcome(self, fields: Fields, before: None, actions: np.ndarray) -> Outcome:
        distance = -_norm(self._to_target(fields)) * self.env._reward_dist_weight
        control = -_sum_of_squares(actions) * self.env._reward_control_weight
        info = {"reward_dist": distance, "reward_ctrl": control}
        return distance + control, _never(actions), info

    def observe(self, fields: Fields) -> np.ndarray:
        angles = fields["qpos"][:, :2]
        return np.concatenate(
            [
                np.cos(angles),
                np.sin(angles),
                fields["qpos"][:, 2:],
                fields["qvel"][:, :2],
                self._to_target(fields)[:, :2],
            ],
            axis=1,
        )

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = rng.uniform(low=-0.1, high=0.1, size=self.model.nq) + self.init_qpos
        while True:
            goal = rng.uniform(low=-0.2, high=0.2, size=2)
            if np.linalg.norm(goal) < 0.2:
                break
        qpos[-2:] = goal
        qvel = self.init_qvel + rng.uniform(low=-0.005, high=0.005, size=self.model.nv)
        qvel[-2:] = 0
        return qpos, qvel


class Pusher(Task):
    """Pusher-v5."""

    fields = ("qpos", "qvel", "xpos")

    def __init__(self, env: Any):
        super().__init__(env)
        self._tips, self._object, self._goal = (
            self.model.body(name).id for name in ("tips_arm", "object", "goal")
        )

    def outcome(self, fields: Fields, before: None, actions: np.ndarray) -> Outcome:
        env, places = self.env, fields["xpos"]
        near = -_norm(places[:, self._object] - places[:, self._tips]) * env._reward_near_weight
        distance = -_norm(places[:, self._object] - places[:, self._goal]) * env._reward_dist_weight
        control = -_sum_of_squares(actions) * env._reward_control_weight
        info = {"reward_dist": distance, "reward_ctrl": control, "reward_near": near}
        return distance + control + near, _never(actions), info

    def observe(self, fields: Fields) -> np.ndarray:
        places = fields["xpos"]
        return np.concatenate(
            [
                fields["qpos"][:, :7],
                fields["qvel"][:, :7],
                *(places[:, body] for body in (self._tips, self._object, self._goal)),
            ],
            axis=1,
        )

    def first_state(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.init_qpos.copy()
        while True:
            x = rng.uniform(low=-0.3, high=0, size=1)
            cylinder = np.concatenate([x, rng.uniform(low=-0.2, high=0.2, size=1)])
            if np.linalg.norm(cylinder) > 0.17:
                break
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0
        qvel = self.init_qvel + rng.uniform(low=-0.005, high=0.005, size=self.model.nv)
        qvel[-4:] = 0
        return qpos, qvel


# By the module and class of Gymnasium's that has the same rules.
TASKS: dict[str, type[Task]] = {
    "half_cheetah_v5:HalfCheetahEnv": HalfCheetah,
    "ant_v5:AntEnv": Ant,
    "hopper_v5:HopperEnv": Hopper,
    "walker2d_v5:Walker2dEnv": Walker2d,
    "humanoid_v5:HumanoidEnv": Humanoid,
    "humanoidstandup_v5:HumanoidStandupEnv": HumanoidStandup,
    "swimmer_v5:SwimmerEnv": Swimmer,
    "inverted_pendulum_v5:InvertedPendulumEnv": InvertedPendulum,
    "inverted_double_pendulum_v5:InvertedDoublePendulumEnv": InvertedDoublePendulum,
    "reacher_v5:ReacherEnv": Reacher,
    "pusher_v5:PusherEnv": Pusher,
}


def _never(actions: np.ndarray) -> np.ndarray:
    return np.zeros(len(actions), bool)


def _between(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return (low < values) & (values < high)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _sum_of_squares(values: np.ndarray) -> np.ndarray:
    """Of each environment, in the precision of `values`."""
    return np.sum(np.square(_flat(values)), axis=1)


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(np.vecdot(vectors, vectors))


def _control_cost(env: Any, actions: np.ndarray) -> np.ndarray:
    return env._ctrl_cost_weight * _sum_of_squares(actions)


def _without_xy(env: Any, fields: Fields) -> np.ndarray:
    return fields["qpos"][:, 2 * int(env._exclude_current_positions_from_observation) :]


def _xy(name: str, values: np.ndarray) -> Info:
    return {f"x_{name}": values[:, 0], f"y_{name}": values[:, 1]}


def _place(fields: Fields) -> Info:
    distance = _norm(fields["qpos"][:, :2])
    return {**_xy("position", fields["qpos"]), "distance_from_origin": distance}
