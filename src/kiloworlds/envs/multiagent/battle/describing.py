"""A battle in words."""

from typing import NamedTuple

import numpy as np

from kiloworlds.envs.multiagent.battle.orders import FIRST_TARGET
from kiloworlds.envs.multiagent.battle.scenarios import UNIT_NAMES, UnitTypes

_WAYS = {(0, 1): "north", (1, 0): "east", (0, -1): "south", (-1, 0): "west"}


ARRAYS = ("x", "y", "health", "cooldown", "unit_type", "move_x", "move_y", "target", "shot")
"""What of a state a `Scene` holds."""


class Scene(NamedTuple):
    """A state on the host: arrays `[U]` over the units of both armies, allies first."""

    x: np.ndarray
    y: np.ndarray
    health: np.ndarray
    cooldown: np.ndarray
    unit_type: np.ndarray
    move_x: np.ndarray
    move_y: np.ndarray
    target: np.ndarray
    shot: np.ndarray
    num_allies: int
    width: float
    height: float
    walls_cause_death: bool
    unit_types: UnitTypes

    @property
    def alive(self) -> np.ndarray:
        return self.health > 0

    def name(self, unit: int) -> str:
        """The name of a unit's agent."""
        if unit < self.num_allies:
            return f"ally_{unit}"
        return f"enemy_{unit - self.num_allies}"

    def target_of(self, unit: int) -> int | None:
        """The unit that is the target of another, None if it has none."""
        target = int(self.target[unit])
        if target < 0:
            return None
        return target + self.num_allies if unit < self.num_allies else target

    def others(self, unit: int) -> range:
        """The units of the other army, in the order in which the actions of a unit count them."""
        if unit < self.num_allies:
            return range(self.num_allies, len(self.x))
        return range(self.num_allies - 1, -1, -1)

    def distance(self, one: int, other: int) -> float:
        return float(np.hypot(self.x[one] - self.x[other], self.y[one] - self.y[other]))


def describe(scene: Scene) -> str:
    """The whole battle as text: what an action does, and each unit of both armies, a line each."""
    num_allies, num_units = scene.num_allies, len(scene.x)
    border = "; its border is deadly." if scene.walls_cause_death else "."
    lines = [
        f"A battle of {num_allies} allies against {num_units - num_allies} enemies on a map "
        f"{scene.width:g} wide (x, west to east) and {scene.height:g} high (y, south to north){border}",
        "Actions: 0 north, 1 east, 2 south, 3 west, 4 stop, from 5 on attack a unit of the other army.",
        "Lengths are those of the map, between the middles of units; times are seconds.",
        "Types:",
        *(f"  {_type(scene, kind)}" for kind in sorted(set(scene.unit_type.tolist()))),
    ]
    armies = ("Allies", range(num_allies)), ("Enemies", range(num_allies, num_units))
    for title, army in armies:
        alive = int(scene.alive[list(army)].sum())
        lines.append(f"{title}, {alive} of {len(army)} alive:")
        lines += [f"  {_unit(scene, unit)}" for unit in army]
    return "\n".join(lines)


def _type(scene: Scene, kind: int) -> str:
    values = {name: float(value[kind]) for name, value in scene.unit_types._asdict().items()}
    return (
        f"{UNIT_NAMES[kind]}: health {values['health']:g}, damage {values['damage']:g} each "
        f"{values['cooldown']:.2f} s within {values['attack_range']:g}, sees as far as "
        f"{values['sight_range']:g}, walks {values['speed']:.2f} a second, radius {values['radius']:g}"
    )


def _unit(scene: Scene, unit: int) -> str:
    kind = int(scene.unit_type[unit])
    name = f"{scene.name(unit)} {UNIT_NAMES[kind]}"
    if not scene.alive[unit]:
        return f"{name}: dead"
    types = scene.unit_types
    wait = float(scene.cooldown[unit])
    parts = [
        f"at ({scene.x[unit]:.2f}, {scene.y[unit]:.2f})",
        f"health {scene.health[unit]:g}/{float(types.health[kind]):g}",
        "weapon ready" if wait <= 0 else f"weapon ready in {wait:.2f} s",
        _last_order(scene, unit),
        _reach(scene, unit),
    ]
    return f"{name}: {', '.join(parts)}"


def _last_order(scene: Scene, unit: int) -> str:
    target = scene.target_of(unit)
    if target is not None:
        did = "shot at" if scene.shot[unit] else "aimed at"
        return f"{did} {scene.name(target)}"
    move = scene.move_x[unit], scene.move_y[unit]
    way = _WAYS.get((round(float(move[0])), round(float(move[1]))))
    return f"moved {way}" if way else "stood still"


def _reach(scene: Scene, unit: int) -> str:
    """Whom a unit can attack, by which action, and whom else of the other army it sees."""
    kind = int(scene.unit_type[unit])
    attack_range = float(scene.unit_types.attack_range[kind])
    sight_range = float(scene.unit_types.sight_range[kind])
    near, seen = [], []
    for action, other in enumerate(scene.others(unit), start=FIRST_TARGET):
        if not scene.alive[other]:
            continue
        distance = scene.distance(unit, other)
        if distance < attack_range:
            near.append(f"{scene.name(other)} (action {action}, {distance:.1f} away)")
        elif distance < sight_range:
            seen.append(f"{scene.name(other)} ({distance:.1f} away)")
    text = (
        f"can attack {', '.join(near)}" if near else f"nobody within its range of {attack_range:g}"
    )
    return f"{text}, sees {', '.join(seen)}" if seen else text
