"""What jaxmarl calls its environments and their parameters, and what they are called here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kiloworlds.compat.refusals import refuse
from kiloworlds.core.checks import require_count, require_number
from kiloworlds.core.errors import InvalidValueError, unknown_name
from kiloworlds.core.registry import find_spec, list_envs
from kiloworlds.envs.multiagent.battle.scenarios import (
    STARCRAFT_UNITS,
    UNIT_NAMES,
    Scenario,
    find_scenario,
)
from kiloworlds.envs.multiagent.overcooked.layouts import LAYOUTS, find_layout

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What stands here for one of jaxmarl's environments.

    Attributes:
        id: ours.
        parameters: ours.
        agents: gives jaxmarl's name of an agent by ours.
        order: jaxmarl's order of its names; None where it is that of the agents here.
        has_world_state: whether its observations have an entry "world_state".
        has_team_reward: whether its rewards have an entry "__all__".
    """

    id: str
    parameters: Parameters
    agents: Callable[[str], str] = str
    order: tuple[str, ...] | None = None
    has_world_state: bool = False
    has_team_reward: bool = False


@dataclass(frozen=True)
class Entry:
    """How one of jaxmarl's environments is made here.

    Attributes:
        id: ours.
        parameters: of ours that make it jaxmarl's; those given come before them.
        names: our names of parameters, by jaxmarl's, where they differ.
        only: parameters of jaxmarl with the single value that can be given here.
        convert: brings values of parameters from jaxmarl's form to ours.
        agents, order, has_world_state, has_team_reward: see `Wanted`.
    """

    id: str
    parameters: Parameters = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=dict)
    convert: Callable[[Parameters], Parameters] = dict
    agents: Callable[[str], str] = str
    order: tuple[str, ...] | None = None
    has_world_state: bool = False
    has_team_reward: bool = False


# MPE.


def _mpe(name: str, **entry: Any) -> Entry:
    names = {"num_good_agents": "num_good", "num_obs": "num_obstacles"} | entry.pop("names", {})
    return Entry(f"mpe/{name}", names=names, convert=_with_action_type, **entry)


def _with_action_type(given: Parameters) -> Parameters:
    """jaxmarl's `action_type` as `continuous_actions`."""
    kind = given.pop("action_type", None)
    if kind is None:
        return given
    if kind not in ("Discrete", "Continuous"):
        raise refuse("make", "action_type", kind, "give 'Discrete' or 'Continuous'")
    return given | {"continuous_actions": kind == "Continuous"}


def _spread(given: Parameters) -> Parameters:
    landmarks, agents = given.pop("num_landmarks", None), given.get("N", 3)
    if landmarks not in (None, agents):
        reason = f"there is a landmark for each agent here, {agents}"
        raise refuse("make", "num_landmarks", landmarks, reason)
    return _with_action_type(given)


# SMAX.

_UNIT_NUMBERS = {
    "unit_type_velocities": "speed",
    "unit_type_attacks": "damage",
    "unit_type_attack_ranges": "attack_range",
    "unit_type_sight_ranges": "sight_range",
    "unit_type_radiuses": "radius",
    "unit_type_health": "health",
    "unit_type_weapon_cooldowns": "cooldown",
}


def _smax(given: Parameters) -> Parameters:
    sizes = {name: given.pop(name) for name in ("num_allies", "num_enemies") if name in given}
    drawn = {
        ours: bool(given.pop(theirs))
        for theirs, ours in (
            ("smacv2_unit_type_generation", "random_types"),
            ("smacv2_position_generation", "random_positions"),
        )
        if theirs in given
    }
    scenario = given.pop("scenario", None)
    if scenario is None:
        allies, enemies = (
            require_count(name, sizes.get(name, 5)) for name in ("num_allies", "num_enemies")
        )
        scenario = Scenario(("marine",) * allies, ("marine",) * enemies, **drawn)
    units = {ours: given.pop(name) for name, ours in _UNIT_NUMBERS.items() if name in given}
    if units:
        given["unit_types"] = STARCRAFT_UNITS._replace(**units)
    return given | {"scenario": _scenario(scenario)}


def _scenario(scenario: Any) -> str | Scenario:
    """A scenario, also one of jaxmarl's own objects."""
    if isinstance(scenario, str | Scenario):
        return scenario
    if not hasattr(scenario, "unit_types"):
        reason = "give a name or what map_name_to_scenario gives"
        raise refuse("make", "scenario", scenario, reason)
    units = tuple(UNIT_NAMES[index] for index in np.asarray(scenario.unit_types).tolist())
    return Scenario(
        units[: scenario.num_allies],
        units[scenario.num_allies :],
        random_types=scenario.smacv2_unit_type_generation,
        random_positions=scenario.smacv2_position_generation,
    )


def map_name_to_scenario(map_name: str) -> Scenario:
    """The scenario of SMAX of that name, for `make("SMAX", scenario=...)`.

    Raises:
        UnknownNameError: there is none; near ones are suggested.
    """
    return find_scenario(map_name)


# Overcooked.

_LETTERS = {  # what jaxmarl's layouts hold, in the order in which letters go over each other
    "wall_idx": "W",
    "agent_idx": "A",
    "goal_idx": "X",
    "plate_pile_idx": "B",
    "onion_pile_idx": "O",
    "pot_idx": "P",
}

_LONGEST_SIDE = 64

overcooked_layouts: dict[str, str] = {name: name for name in LAYOUTS}
"""The kitchens of Overcooked by name, for `make("overcooked", layout=...)`."""


def _overcooked(given: Parameters) -> Parameters:
    layout = given.get("layout")
    if isinstance(layout, Mapping):
        given["layout"] = _drawn_layout(layout)
    if "max_episode_steps" in given:
        given.setdefault("horizon", given["max_episode_steps"])
    return given


def _overcooked_v2(given: Parameters) -> Parameters:
    kind = given.pop("observation_type", None)
    if getattr(kind, "value", "default") != "default":
        raise refuse("make", "observation_type", kind, "observations are the default ones here")
    if not isinstance(given.get("layout", ""), str):
        raise refuse("make", "layout", given["layout"], "give the name of a kitchen, or a text")
    if given.pop("negative_rewards", False):
        given["wrong_delivery_reward"] = -20.0
    permuted = given.pop("op_ingredient_permutations", None)
    return given | ({"permuted_ingredients": permuted} if permuted else {})


def _drawn_layout(layout: Mapping[str, Any]) -> str:
    """A layout of jaxmarl, which holds numbers of cells: the name of the same kitchen, or a text."""
    missing = [name for name in ("width", "height", *_LETTERS) if name not in layout]
    if missing:
        reason = (
            f"it lacks {', '.join(missing)}; give the name of a kitchen, a text or all of these"
        )
        raise refuse("make", "layout", sorted(layout), reason)
    unknown = [name for name in layout if name not in ("width", "height", *_LETTERS)]
    if unknown:
        reason = f"known are width, height, {', '.join(_LETTERS)}"
        raise refuse("make", "layout", unknown[0], reason)
    for name in ("width", "height"):
        require_number(f"layout: {name}", layout[name], 1, _LONGEST_SIDE, whole=True)
    width, height = layout["width"], layout["height"]
    cells = [" "] * (width * height)
    for name, letter in _LETTERS.items():
        for cell in np.ravel(layout[name]).tolist():
            require_number(f"layout: {name}", cell, 0, len(cells) - 1, whole=True)
            cells[cell] = letter
    text = "\n".join("".join(cells[row * width :][:width]) for row in range(height))
    drawn, starts = find_layout(text), tuple(np.asarray(layout["agent_idx"]).tolist())
    for name in LAYOUTS:
        known = find_layout(name)
        if (known.rows, known.starts) == (drawn.rows, starts):
            return name
    if starts != drawn.starts:
        reason = (
            "agents are numbered in reading order here; swap them, or draw the kitchen as a text"
        )
        raise refuse("make", "layout", f"agent_idx={list(starts)}", reason)
    return text


# JaxNav.

_JAXNAV_NAMES = {
    "num_agents": "robots",
    "lidar_num_beams": "num_beams",
    "lidar_range_resolution": "lidar_resolution",
    "lidar_max_range": "lidar_range",
    "min_v": "min_speed",
    "max_v": "max_speed",
    "max_v_acc": "max_acceleration",
    "max_w": "max_turn_rate",
    "max_w_acc": "max_turn_acceleration",
    "rew_lambda": "reward_lambda",
    "goal_rew": "goal_reward",
    "weight_g": "progress_weight",
    "lim_w": "turn_threshold",
    "weight_w": "turn_weight",
    "dt_rew": "time_reward",
    "coll_rew": "collision_reward",
    "lidar_rew": "proximity_reward",
}
_JAXNAV_ONLY = {
    "normalise_obs": True,
    "rad": 0.3,
    "map_id": "Grid-Rand-Poly",
    "lidar_min_range": 0.0,
    "do_sep_reward": False,
    "info_by_agent": True,
}
_JAXNAV_MAPS = {"map_size": "map_size", "fill": "fill", "valid_path_check": "solvable"}


def _jaxnav(given: Parameters) -> Parameters:
    for name, value in given.pop("map_params", {}).items():
        if name not in _JAXNAV_MAPS:
            known = ", ".join(_JAXNAV_MAPS)
            raise refuse("make", f"map_params[{name!r}]", value, f"here they hold {known}")
        given[_JAXNAV_MAPS[name]] = value
    if "evaporating" in given:
        given["finished"] = "vanish" if given.pop("evaporating") else "continue"
    if "lidar_angle_factor" in given:
        given["field_of_view"] = 2 * np.pi * given.pop("lidar_angle_factor")
    if "lidar_thresh" in given:  # from the robot's edge, not its middle
        given["proximity_distance"] = given.pop("lidar_thresh") + _JAXNAV_ONLY["rad"]
    low, high = given.pop("lambda_range", (0.0, 1.0))
    if not given.pop("fixed_lambda", True):
        given |= {"reward_lambda": low, "max_reward_lambda": high}
    if "act_type" in given:
        given["action_type"] = given.pop("act_type")
    return _with_action_type(given)


# Coin Game and STORM: rounds of steps, whose number is the time limit here.


def _rounds(given: Parameters, inner: int, outer: int) -> Parameters:
    """jaxmarl's `num_outer_steps` (rounds) as a limit of steps; by default `inner` times `outer`."""
    if not {"num_inner_steps", "num_outer_steps"} & set(given):
        return given
    steps = given.get("num_inner_steps", inner)
    rounds = require_count("num_outer_steps", given.pop("num_outer_steps", outer))
    return given | {"num_inner_steps": steps, "max_episode_steps": steps * rounds}


def _coin_game(given: Parameters) -> Parameters:
    return _rounds(given, 10, 10)


def _storm(given: Parameters) -> Parameters:
    given = _rounds(given, 152, 1)
    if given.get("num_inner_steps") == given.get("max_episode_steps"):
        given.pop("num_inner_steps", None)  # a single round is an episode
    return given


def _agent_for_player(name: str) -> str:
    return name.replace("player", "agent")


# The names that jaxmarl 0.2.0 registers, in its order.

_FACMAC = "FACMAC's variants of simple_tag are not offered here"
_BRAX = "Brax's bodies are not offered here"
_ROBOTARIUM = "the robotarium is not offered here"

NAMES: dict[str, Entry | str] = {
    "MPE_simple_v3": _mpe("simple_v3", only={"num_agents": 1, "num_landmarks": 1}),
    "MPE_simple_tag_v3": _mpe("simple_tag_v3"),
    "MPE_simple_world_comm_v3": _mpe(
        "simple_world_comm_v3", parameters={"continuous_actions": True}
    ),
    "MPE_simple_spread_v3": Entry(
        "mpe/simple_spread_v3", names={"num_agents": "N"}, convert=_spread
    ),
    "MPE_simple_crypto_v3": _mpe(
        "simple_crypto_v3",
        only={"num_agents": 3, "num_landmarks": 2},
        order=("eve_0", "alice_0", "bob_0"),
    ),
    "MPE_simple_speaker_listener_v4": _mpe(
        "simple_speaker_listener_v4", only={"num_agents": 2, "num_landmarks": 3}
    ),
    "MPE_simple_push_v3": _mpe(
        "simple_push_v3", only={"num_good_agents": 1, "num_adversaries": 1, "num_landmarks": 2}
    ),
    "MPE_simple_adversary_v3": _mpe(
        "simple_adversary_v3",
        names={"num_good_agents": "N"},
        only={"num_adversaries": 1, "num_obs": 2},
    ),
    "MPE_simple_reference_v3": _mpe(
        "simple_reference_v3", only={"num_agents": 2, "num_landmarks": 3}
    ),
    "MPE_simple_facmac_v1": _FACMAC,
    "MPE_simple_facmac_3a_v1": _FACMAC,
    "MPE_simple_facmac_6a_v1": _FACMAC,
    "MPE_simple_facmac_9a_v1": _FACMAC,
    "switch_riddle": Entry("switch_riddle", agents=lambda name: name.replace("prisoner", "agent")),
    "SMAX": Entry(
        "smax/3m",
        parameters={"opponent": "learned"},
        only={"action_type": "discrete"},
        convert=_smax,
        has_world_state=True,
    ),
    "HeuristicEnemySMAX": Entry(
        "smax/3m", only={"action_type": "discrete"}, convert=_smax, has_world_state=True
    ),
    "LearnedPolicyEnemySMAX": "policies of the other army are not offered here; make 'SMAX' and act "
    "for both armies",
    "ant_4x2": _BRAX,
    "halfcheetah_6x1": _BRAX,
    "hopper_3x1": _BRAX,
    "humanoid_9|8": _BRAX,
    "walker2d_2x3": _BRAX,
    "storm": "its older rules are not offered here; make 'storm_2p' or 'storm_np'",
    "storm_2p": Entry(
        "storm/2p-prisoners-dilemma",
        only={"num_agents": 2},
        convert=_storm,
        agents=_agent_for_player,
    ),
    "storm_np": Entry(
        "storm/np-prisoners-dilemma",
        parameters={"num_agents": 2},
        only={"fixed_coin_location": True, "cnn": True},
        convert=_storm,
        agents=_agent_for_player,
    ),
    "hanabi": Entry(
        "hanabi/full-2p",
        only={"color_map": None, "num_moves": None, "shuffle_player_order": False},
        has_team_reward=True,
    ),
    "overcooked": Entry("overcooked/cramped_room", convert=_overcooked),
    "overcooked_v2": Entry(
        "overcooked_v2/cramped_room",
        only={"initial_state_buffer": None, "force_path_planning": False},
        convert=_overcooked_v2,
    ),
    "coin_game": Entry(
        "coin_game", convert=_coin_game, agents={"red": "0", "blue": "1"}.__getitem__
    ),
    "jaxnav": Entry(
        "navigation/random-1r",
        # Robots that arrived drive on, as they do there unless they evaporate.
        parameters={"robots": 2, "continuous_actions": True, "finished": "continue"},
        names=_JAXNAV_NAMES,
        only=_JAXNAV_ONLY,
        convert=_jaxnav,
        agents=lambda name: name.replace("robot", "agent"),
    ),
    "JaxRobotarium_navigation": _ROBOTARIUM,
    "JaxRobotarium_discovery": _ROBOTARIUM,
    "JaxRobotarium_material_transport": _ROBOTARIUM,
    "JaxRobotarium_warehouse": _ROBOTARIUM,
    "JaxRobotarium_arctic_transport": _ROBOTARIUM,
    "JaxRobotarium_foraging": _ROBOTARIUM,
    "JaxRobotarium_rware": _ROBOTARIUM,
    "JaxRobotarium_predator_prey": _ROBOTARIUM,
}
"""How each is made here, or why it is not."""


def translate(name: str, given: Parameters) -> Wanted:
    """Our id and parameters for a name and parameters of jaxmarl; ids of ours stay as they are.

    Raises:
        UnknownNameError: no such name; near ones are suggested.
        InvalidValueError: not offered here, or a parameter with a value that is not.
    """
    entry = NAMES.get(name)
    if entry is None:
        if find_spec(name) is None:
            known = [*NAMES, *list_envs()]
            raise unknown_name(
                "environment", name, known, "kiloworlds.compat.jaxmarl.registered_envs"
            )
        return Wanted(name, dict(given))
    if isinstance(entry, str):
        raise InvalidValueError(f"make({name!r}): {entry}.")
    return Wanted(
        entry.id,
        _translated(entry, given),
        entry.agents,
        entry.order,
        entry.has_world_state,
        entry.has_team_reward,
    )


def _translated(entry: Entry, given: Parameters) -> Parameters:
    ours = {}
    for name, value in given.items():
        if name in entry.only:
            if value != entry.only[name]:
                raise refuse("make", name, value, f"here it is {entry.only[name]!r}")
        elif name == "max_steps":
            ours["max_episode_steps"] = value
        else:
            ours[entry.names.get(name, name)] = value
    return entry.parameters | entry.convert(ours)
