"""The classic-control environments against Gymnasium's, state for state."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.classic.acrobot import Acrobot, AcrobotState
from kiloworlds.envs.classic.cartpole import CartPole, CartPoleState
from kiloworlds.envs.classic.mountain_car import (
    MountainCar,
    MountainCarContinuous,
    MountainCarState,
)
from kiloworlds.envs.classic.pendulum import Pendulum, PendulumState
from kiloworlds.testing.distributions import same_distribution
from kiloworlds.testing.parity import parity

# What Gymnasium says of CartPole-v0, which is kept for what was published with it.
pytestmark = pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date:DeprecationWarning")

IDS = [
    "CartPole-v0",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Acrobot-v1",
]
CLASSES = [CartPole, MountainCar, MountainCarContinuous, Pendulum, Acrobot]


def set_state(slow, state):
    slow.state = np.array(state, np.float64)


def balance(observation, taken):
    """Keeps the cart's pole up for more than 500 steps."""
    return int(observation @ [0.1, 0.3, 3.0, 1.0] > 0)


def swing(observation, taken):
    """Pushes the car the way it moves, which reaches the flag."""
    return 2 * int(observation[1] > 0)


def swing_continuously(observation, taken):
    # Beyond the bounds of the space, to see that the reward counts what was asked for.
    return [1.5 * np.sign(observation[1] + 1e-9)]


def whirl(observation, taken):
    """Adds energy, past the speed limit of the pendulum."""
    return [3.0 * np.sign(observation[2] + 1e-9)]


def pump(observation, taken):
    """Swings the lower link against its motion, which lifts the tip above the line."""
    return 2 * int(observation[4] < 0) if taken % 50 < 40 else 2 * int(observation[5] > 0)


def make_slow(id, changes=None, **kwargs):
    slow = gymnasium.make(id, disable_env_checker=True, **kwargs)
    for name, value in (changes or {}).items():
        assert hasattr(slow.unwrapped, name), name
        setattr(slow.unwrapped, name, value)
    return slow


def compare(id, changes=None, slow_kwargs=None, observation_space=None, **kwargs):
    fast_kwargs = kwargs.pop("fast_kwargs", {})
    fast = make_environment(id, **fast_kwargs)
    slow = make_slow(id, changes, **(slow_kwargs or {}))
    # Gymnasium fixes its spaces when built, before the test changes what they follow from.
    if changes:
        slow.unwrapped.observation_space = fast.observation_space.to_gymnasium()
        slow.unwrapped.action_space = fast.action_space.to_gymnasium()
    return parity(fast, slow, set_state=set_state, **kwargs)


@pytest.mark.parametrize("id", IDS)
def test_sampled_actions(id):
    report = compare(id, episodes=5)
    assert report.episodes == report.terminated + report.truncated == 5


@pytest.mark.parametrize(
    ("id", "actions"),
    [
        ("CartPole-v0", balance),
        ("CartPole-v1", balance),
        ("MountainCar-v0", lambda observation, taken: 1),
        ("MountainCarContinuous-v0", lambda observation, taken: [0.0]),
        ("Pendulum-v1", whirl),
        ("Acrobot-v1", lambda observation, taken: 1),
    ],
)
def test_time_limit_truncates_at_the_same_step(id, actions):
    limit = gymnasium.spec(id).max_episode_steps
    report = compare(id, episodes=2, actions=actions)
    assert (report.steps, report.truncated, report.terminated) == (2 * limit, 2, 0)


@pytest.mark.parametrize(
    ("id", "actions"),
    [
        ("MountainCar-v0", swing),
        ("MountainCarContinuous-v0", swing_continuously),
        ("Acrobot-v1", pump),
    ],
)
def test_goal_terminates_at_the_same_step(id, actions):
    report = compare(id, episodes=3, actions=actions)
    assert (report.terminated, report.truncated) == (3, 0)


@pytest.mark.parametrize(
    ("id", "actions", "tolerance"),
    [
        ("CartPole-v1", None, 1e-4),
        ("MountainCar-v0", None, 1e-4),
        ("MountainCarContinuous-v0", None, 1e-4),
        ("Pendulum-v1", whirl, 1e-2),
    ],
)
def test_whole_episodes_without_resynchronising(id, actions, tolerance):
    report = compare(
        id, episodes=3, actions=actions, resynchronise=False, rtol=tolerance, atol=tolerance
    )
    assert report.episodes == 3


NON_DEFAULT = [
    (
        "CartPole-v1",
        {
            "gravity": 3.7,
            "masscart": 1.5,
            "masspole": 0.3,
            "length": 0.8,
            "force_mag": 6.0,
            "tau": 0.03,
            "theta_threshold_radians": 0.3,
            "x_threshold": 1.1,
        },
        # What Gymnasium computes from them once, when built.
        {"total_mass": 0.3 + 1.5, "polemass_length": 0.3 * 0.8},
        [None, balance],
    ),
    (
        "MountainCar-v0",
        {
            "goal_position": 0.4,
            "goal_velocity": 0.01,
            "min_position": -1.0,
            "max_position": 0.55,
            "max_speed": 0.05,
            "force": 0.0013,
            "gravity": 0.0021,
        },
        {},
        [None, swing],
    ),
    (
        "MountainCarContinuous-v0",
        {
            "goal_position": 0.4,
            "goal_velocity": 0.01,
            "min_position": -1.0,
            "max_position": 0.55,
            "max_speed": 0.05,
            "min_action": -0.9,
            "max_action": 1.1,
            "power": 0.0018,
        },
        {},
        [None, swing_continuously],
    ),
    (
        "Pendulum-v1",
        {"g": 3.7, "mass": 0.7, "length": 1.3, "dt": 0.03, "max_speed": 5.0, "max_torque": 2.5},
        {},
        [None, whirl],
    ),
    (
        "Acrobot-v1",
        {
            "link_length_1": 1.2,
            "link_length_2": 0.7,
            "link_mass_1": 0.8,
            "link_mass_2": 1.3,
            "link_com_pos_1": 0.7,
            "link_com_pos_2": 0.4,
            "link_moi": 1.4,
            "max_vel_1": 3.0,
            "max_vel_2": 5.0,
            "dt": 0.1,
        },
        {},
        [None, pump],
    ),
]
GYMNASIUM_NAMES = {"Pendulum-v1": {"mass": "m", "length": "l"}}


def gymnasium_attributes(id, parameters, derived):
    names = GYMNASIUM_NAMES.get(id, {})
    upper = str.upper if id == "Acrobot-v1" else str
    renamed = {
        names.get(name, "dt" if name == "dt" else upper(name)): value
        for name, value in parameters.items()
    }
    return renamed | derived


@pytest.mark.parametrize(("id", "parameters", "derived", "policies"), NON_DEFAULT)
def test_parameters_other_than_the_defaults(id, parameters, derived, policies):
    changes = gymnasium_attributes(id, parameters, derived)
    for actions in policies:
        report = compare(id, changes, fast_kwargs=parameters, episodes=3, actions=actions)
        assert report.episodes == 3


# Wider than what is reached, so that every wall, limit and threshold is crossed many times.
LARGEST_STATE = {
    "CartPole-v1": [2.6, 3.0, 0.4, 3.0],
    "MountainCar-v0": [1.0, 0.08],
    "MountainCarContinuous-v0": [1.0, 0.08],
    "Pendulum-v1": [12.0, 8.0],
    "Acrobot-v1": [np.pi, np.pi, 4.0, 6.0],
}


@pytest.mark.parametrize("default", [True, False], ids=["default", "other"])
@pytest.mark.parametrize(("id", "parameters", "derived", "policies"), NON_DEFAULT)
def test_single_steps_from_everywhere(id, parameters, derived, policies, default):
    count, generator = 3000, np.random.default_rng(0)
    middle = -0.3 if id.startswith("MountainCar") else 0.0
    largest = np.array(LARGEST_STATE[id])
    states = generator.uniform(-largest, largest, (count, largest.size)).astype(np.float32)
    states[:, 0] += middle
    parameters = {} if default else parameters
    env = make_environment(id, **parameters).unwrapped
    actions = jax.vmap(env.action_space.sample)(jax.random.split(fast_key(0), count))
    kind = type(env.reset(fast_key(0))[0])
    _, steps = jax.vmap(env.step, (None, 0, 0))(fast_key(0), kind(*states.T), actions)

    changes = {} if default else gymnasium_attributes(id, parameters, derived)
    slow = make_slow(id, changes).unwrapped
    slow.action_space = env.action_space.to_gymnasium()
    slow.reset(seed=0)
    results = []
    for state, action in zip(states, np.asarray(actions), strict=True):
        set_state(slow, state)
        slow.steps_beyond_terminated = None  # CartPole's memory of having ended
        results.append(slow.step(action if action.ndim else int(action)))
    observation, reward, terminated, _, _ = zip(*results, strict=True)
    np.testing.assert_allclose(steps.observation, np.array(observation), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(steps.reward, reward, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(steps.terminated, terminated)
    assert id == "Pendulum-v1" or 30 < np.sum(terminated) < count - 30


@pytest.mark.parametrize("integrator", ["euler", "semi-implicit"])
@pytest.mark.parametrize("sutton_barto_reward", [False, True])
def test_cartpole_variants(integrator, sutton_barto_reward):
    report = compare(
        "CartPole-v1",
        {"kinematics_integrator": integrator},
        {"sutton_barto_reward": sutton_barto_reward},
        fast_kwargs={
            "kinematics_integrator": integrator,
            "sutton_barto_reward": sutton_barto_reward,
        },
    )
    assert report.terminated == 10


@pytest.mark.parametrize("actions", [None, pump])
def test_acrobot_with_the_equations_of_the_paper_and_another_torque(actions):
    report = compare(
        "Acrobot-v1",
        {"book_or_nips": "nips", "AVAIL_TORQUE": [-1.7, 0.0, 1.7]},
        fast_kwargs={"book_or_nips": "nips", "torque": 1.7},
        episodes=3,
        actions=actions,
    )
    assert report.episodes == 3


def test_constructor_arguments_have_gymnasiums_names():
    for id in ("MountainCar-v0", "MountainCarContinuous-v0"):
        kwargs = {"goal_velocity": 0.03}
        assert compare(id, None, kwargs, fast_kwargs=kwargs, episodes=2).episodes == 2
    kwargs = {"g": 9.81}
    assert compare("Pendulum-v1", None, kwargs, fast_kwargs=kwargs, episodes=2).steps == 400
    with pytest.raises(InvalidValueError, match="Pendulum-v1"):
        make_environment("Pendulum-v1", gravity=9.81)


def test_gravity_of_the_continuous_car_scales_the_slope():
    # Gymnasium has it as a literal, so it is compared with the formula.
    state = MountainCarState(jnp.float32(-0.3), jnp.float32(0.01))
    after, _ = MountainCarContinuous(gravity=0.004).step(fast_key(0), state, jnp.zeros(1))
    np.testing.assert_allclose(after.velocity, 0.01 - 0.004 * np.cos(-0.9), rtol=1e-5)


RESET_OPTIONS = [
    ("CartPole-v1", {}),
    ("CartPole-v1", {"low": -0.2, "high": 0.1}),
    ("MountainCar-v0", {}),
    ("MountainCar-v0", {"low": -0.9, "high": 0.2}),
    ("MountainCarContinuous-v0", {}),
    ("MountainCarContinuous-v0", {"low": -0.9, "high": 0.2}),
    ("Pendulum-v1", {}),
    ("Pendulum-v1", {"x_init": 0.4, "y_init": 3.0}),
    ("Acrobot-v1", {}),
    ("Acrobot-v1", {"low": -0.3, "high": 0.4}),
]


def initial_states(id, **kwargs):
    env = make_environment(id, **kwargs)
    state, observation = jax.vmap(env.reset)(jax.random.split(fast_key(1), 4000))
    return np.stack(state.inner, axis=1), np.asarray(observation)


def gymnasium_initial_states(id, options):
    env = make_slow(id).unwrapped
    env.reset(seed=0)
    observations = [env.reset(options=options or None)[0] for _ in range(4000)]
    return np.array(observations)


@pytest.mark.parametrize(("id", "options"), RESET_OPTIONS)
def test_initial_observations_have_gymnasiums_distribution(id, options):
    _, ours = initial_states(id, **options)
    assert same_distribution(ours, gymnasium_initial_states(id, options)) > 1e-4


def test_the_check_of_distributions_sees_another_range():
    _, ours = initial_states("MountainCar-v0", low=-0.59)
    assert same_distribution(ours, gymnasium_initial_states("MountainCar-v0", {})) < 1e-4


@pytest.mark.parametrize("id", IDS)
def test_entries_of_initial_states_are_independent(id):
    states, _ = initial_states(id)
    varying = states[:, states.std(axis=0) > 0]
    correlation = np.corrcoef(varying.T) - np.eye(varying.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(len(states))


def test_torque_noise_has_gymnasiums_distribution():
    start = np.array([0.5, -0.3, 1.0, -2.0], np.float32)
    env = Acrobot(torque_noise_max=1.5)
    step = jax.vmap(lambda key: env.step(key, AcrobotState(*start), jnp.int32(2))[0].velocity2)
    ours = step(jax.random.split(fast_key(0), 4000))
    slow = make_slow("Acrobot-v1", {"torque_noise_max": 1.5}).unwrapped
    slow.reset(seed=0)
    theirs = []
    for _ in range(2000):
        slow.state = start.astype(np.float64)
        slow.step(2)
        theirs.append(slow.state[3])
    assert np.std(theirs) > 0.01
    assert same_distribution(np.asarray(ours), np.array(theirs)) > 1e-4


STATES = {
    CartPole: CartPoleState(*np.float32([0.3, -0.5, 0.1, 0.7])),
    MountainCar: MountainCarState(*np.float32([-0.4, 0.03])),
    MountainCarContinuous: MountainCarState(*np.float32([-0.4, 0.03])),
    Pendulum: PendulumState(*np.float32([1.2, -2.0])),
    Acrobot: AcrobotState(*np.float32([0.4, -0.9, 2.0, -3.0])),
}


@pytest.mark.parametrize(
    "kind",
    [*CLASSES[:-1], pytest.param(Acrobot, marks=pytest.mark.slow)],  # compiles once per parameter
)
def test_every_parameter_may_differ_between_environments(kind):
    action = kind().action_space.sample(fast_key(3))
    parameters = [entry for entry in dataclasses.fields(kind) if isinstance(entry.default, float)]
    assert len(parameters) >= 8

    for entry in parameters:
        values = entry.default + np.linspace(0, 0.2, 8, dtype=np.float32)

        def run(value, name=entry.name):
            env = kind(**{name: value})
            return env.reset(fast_key(0)), env.step(fast_key(1), STATES[kind], action)

        batched = jax.jit(jax.vmap(run))(values)
        for i in (0, 7):
            single = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
            jax.tree.map(
                lambda ours, alone: np.testing.assert_allclose(ours, alone, rtol=1e-4, atol=1e-5),
                single,
                run(float(values[i])),
            )


def test_pendulum_rewards_the_equivalent_angle_whatever_the_turns():
    env = Pendulum()
    one, first = env.step(fast_key(0), PendulumState(jnp.float32(2.5), 1.0), jnp.ones(1))
    other, second = env.step(
        fast_key(0), PendulumState(jnp.float32(2.5 - 6 * np.pi), 1.0), jnp.ones(1)
    )
    np.testing.assert_allclose(second.reward, first.reward, rtol=1e-5)
    np.testing.assert_allclose(second.observation, first.observation, atol=1e-5)
    np.testing.assert_allclose(other.angle, one.angle, atol=1e-5)


def test_left_wall_stops_the_car():
    for kind, action in ((MountainCar, 0), (MountainCarContinuous, -jnp.ones(1))):
        state = MountainCarState(jnp.float32(-1.19), jnp.float32(-0.06))
        state, _ = kind().step(fast_key(0), state, action)
        assert state.position == np.float32(-1.2)
        assert state.velocity == 0


@pytest.mark.parametrize("kind", CLASSES)
def test_pictures_show_the_state(kind):
    env = kind()
    resting = jax.tree.map(np.zeros_like, STATES[kind])
    picture, other = env.render(STATES[kind]), env.render(resting)
    assert picture.dtype == np.uint8
    assert picture.shape == other.shape
    assert picture.shape[2] == 3
    assert (picture != other).any()


@pytest.mark.parametrize(
    ("length", "x_threshold"), [(0.5, 2.4), (1.5, 2.4), (5.0, 2.4), (0.5, 0.3)]
)
def test_whole_pole_is_in_the_picture(length, x_threshold):
    upright = CartPoleState(*[jnp.float32(0)] * 4)
    picture = CartPole(length=length, x_threshold=x_threshold).render(upright)
    is_pole = (picture == (217, 119, 6)).all(-1)  # the pole's colour
    assert is_pole.any()
    assert not is_pole[:2].any()
