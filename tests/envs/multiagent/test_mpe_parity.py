"""The particle world equals mpe2's, step by step: states, observations and rewards."""

import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.spaces import from_gymnasium
from kiloworlds.vector.pettingzoo.layout import read_layout

pytest.importorskip("mpe2")

from mpe_worlds import check_parity, make_theirs

TASKS = [
    "simple_v3",
    "simple_spread_v3",
    "simple_tag_v3",
    "simple_adversary_v3",
    "simple_push_v3",
    "simple_reference_v3",
    "simple_speaker_listener_v4",
    "simple_crypto_v3",
    "simple_world_comm_v3",
]
# Few bodies, and so many that pairs are computed in arrays.
VARIANTS = [
    ("simple_spread_v3", {"N": 1, "local_ratio": 0.2}),
    ("simple_spread_v3", {"N": 2, "num_agent_neighbors": 3, "num_landmark_neighbors": 1}),
    ("simple_spread_v3", {"N": 9, "local_ratio": 0.9}),
    ("simple_spread_v3", {"N": 9, "num_agent_neighbors": 4, "num_landmark_neighbors": 12}),
    ("simple_tag_v3", {"num_good": 2, "num_adversaries": 1, "num_obstacles": 0}),
    ("simple_tag_v3", {"num_good": 5, "num_adversaries": 9, "num_obstacles": 7}),
    ("simple_tag_v3", {"num_good": 2, "num_agent_neighbors": 3, "num_landmark_neighbors": 1}),
    ("simple_adversary_v3", {"N": 1}),
    ("simple_adversary_v3", {"N": 9}),
    ("simple_adversary_v3", {"N": 3, "num_agent_neighbors": 2, "num_landmark_neighbors": 4}),
    ("simple_reference_v3", {"local_ratio": 0.0}),
    ("simple_world_comm_v3", {"num_good": 1, "num_adversaries": 1, "num_obstacles": 0}),
    ("simple_world_comm_v3", {"num_forests": 0, "num_food": 1, "num_obstacles": 2}),
    (
        "simple_world_comm_v3",
        {"num_good": 8, "num_adversaries": 9, "num_obstacles": 7, "num_food": 8, "num_forests": 8},
    ),
]


def build(task, **kwargs):
    return kiloworlds.make_environment(f"mpe/{task}", **kwargs).unwrapped


@pytest.mark.parametrize(
    ("task", "continuous"),
    [
        *((task, False) for task in TASKS),
        *(
            pytest.param(task, True, marks=() if task == "simple_spread_v3" else pytest.mark.slow)
            for task in TASKS
        ),
    ],
)
def test_equals_mpe2(task, continuous):
    kwargs = {"continuous_actions": continuous}
    check_parity(build(task, **kwargs), make_theirs(task, **kwargs))


# Those that compile for long; others of the same task are tested at once.
LATER = [
    ("simple_tag_v3", {"num_good": 2, "num_agent_neighbors": 3, "num_landmark_neighbors": 1}),
    ("simple_adversary_v3", {"N": 3, "num_agent_neighbors": 2, "num_landmark_neighbors": 4}),
    ("simple_world_comm_v3", {"num_forests": 0, "num_food": 1, "num_obstacles": 2}),
    VARIANTS[-1],
]


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        pytest.param(*variant, marks=pytest.mark.slow if variant in LATER else ())
        for variant in VARIANTS
    ],
)
def test_other_numbers_equal_mpe2(task, kwargs):
    check_parity(build(task, **kwargs), make_theirs(task, **kwargs))


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(
    ("task", "kwargs"), [(task, {}) for task in TASKS] + VARIANTS, ids=lambda value: str(value)
)
def test_agents_look_as_those_of_pettingzoo(task, kwargs, continuous):
    kwargs = kwargs | {"continuous_actions": continuous}
    env, layout = build(task, **kwargs), read_layout(make_theirs(task, **kwargs), False, None)
    assert list(env.possible_agents) == list(layout.agents)
    assert [(kind.name, kind.agents) for kind in env.kinds] == [
        (kind.name, kind.agents) for kind in layout.kinds.values()
    ]
    for ours, theirs in zip(env.kinds, layout.kinds.values(), strict=True):
        assert ours.action_space == from_gymnasium(theirs.action_space)
        assert ours.observation_space == from_gymnasium(theirs.observation_space)
    assert env.action_space.to_gymnasium() == layout.action_space
    assert env.observation_space.to_gymnasium() == layout.observation_space


WORLD = {"dt": 0.07, "damping": 0.4, "contact_force": 60.0, "contact_margin": 5e-3}


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("simple_v3", {"agent_accel": 2.5}),
        ("simple_spread_v3", {"agent_size": 0.3, "agent_accel": 2.5}),
        ("simple_adversary_v3", {"agent_accel": 2.5, "adversary_accel": 7.0}),
        ("simple_reference_v3", {"agent_accel": 2.5}),
        ("simple_speaker_listener_v4", {"listener_accel": 2.5}),
        (
            "simple_push_v3",
            {"agent_size": 0.1, "adversary_size": 0.2, "agent_accel": 2.5, "adversary_accel": 6.0},
        ),
        (
            "simple_tag_v3",
            {
                "agent_size": 0.1,
                "adversary_size": 0.2,
                "obstacle_size": 0.15,
                "agent_accel": 2.5,
                "adversary_accel": 6.0,
                "agent_max_speed": 0.3,
                "adversary_max_speed": 0.5,
            },
        ),
        (
            "simple_world_comm_v3",
            {
                "agent_size": 0.1,
                "adversary_size": 0.2,
                "obstacle_size": 0.15,
                "food_size": 0.12,
                "forest_size": 0.5,
                "agent_accel": 2.5,
                "adversary_accel": 6.0,
                "agent_max_speed": 0.3,
                "adversary_max_speed": 0.5,
            },
        ),
    ],
)
def test_each_parameter_acts_as_mpe2s(task, parameters):
    theirs = make_theirs(task)
    world = theirs.unwrapped.world
    env = build(task)
    settings = {name: value for name, value in WORLD.items() if hasattr(env, name)}
    for name, value in settings.items():
        setattr(world, name, value)
    for name, value in parameters.items():
        owner, _, attribute = name.partition("_")
        for body in _owned(world, owner):
            setattr(body, attribute, value)
    check_parity(build(task, **settings, **parameters), theirs)


def _owned(world, owner):
    stems = {
        "agent": ("agent",),
        "adversary": ("adversary", "leadadversary"),
        "listener": ("listener",),
        "obstacle": ("landmark",),
        "food": ("food",),
        "forest": ("forest",),
    }[owner]
    bodies = [body for body in world.entities if body.name.rstrip("0123456789_ ") in stems]
    assert bodies
    return bodies


def test_curriculum_of_tag_is_two_parameters():
    theirs = make_theirs("simple_tag_v3", curriculum=True)
    check_parity(build("simple_tag_v3", agent_max_speed=0.65, agent_accel=2.0), theirs)


def test_curriculum_of_spread_is_the_penalty():
    theirs = make_theirs("simple_spread_v3", curriculum=True)
    check_parity(build("simple_spread_v3", collision_penalty=0.0), theirs)


@pytest.mark.parametrize(
    ("task", "kwargs"), [("simple_spread_v3", {"N": 1}), ("simple_tag_v3", {"num_good": 2})]
)
def test_success_ends_the_episode_when_mpe2_says_so(task, kwargs):
    kwargs = kwargs | {"terminate_on_success": True}
    ends = []

    def watch(step, terminations):
        assert set(terminations.values()) == {bool(step.terminated)}
        if task == "simple_spread_v3":
            assert step.info["won"] == step.terminated
        ends.append(bool(step.terminated))

    check_parity(build(task, **kwargs), make_theirs(task, **kwargs), watch)
    assert 0 < np.mean(ends) < 1
