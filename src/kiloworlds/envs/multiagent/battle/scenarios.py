"""Who fights whom: the unit types, and the armies of the named scenarios."""

import reprlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from kiloworlds.core.checks import require_array
from kiloworlds.core.errors import InvalidValueError, did_you_mean, unknown_name

UNIT_NAMES = ("marine", "marauder", "stalker", "zealot", "zergling", "hydralisk")


class UnitTypes(NamedTuple):
    """What units of each type can do, in the order of `UNIT_NAMES`.

    Speed is in lengths per second, ranges and radius in lengths, damage in health per shot, health in
    points, cooldown (between shots) in seconds.
    """

    speed: Float[Array | np.ndarray, "6"]
    attack_range: Float[Array | np.ndarray, "6"]
    sight_range: Float[Array | np.ndarray, "6"]
    radius: Float[Array | np.ndarray, "6"]
    damage: Float[Array | np.ndarray, "6"]
    health: Float[Array | np.ndarray, "6"]
    cooldown: Float[Array | np.ndarray, "6"]


STARCRAFT_UNITS = UnitTypes(
    speed=np.array([3.15, 2.25, 4.13, 3.15, 4.13, 3.15], np.float32),
    attack_range=np.array([5.0, 6.0, 6.0, 2.0, 2.0, 5.0], np.float32),
    sight_range=np.array([9.0, 10.0, 10.0, 9.0, 8.0, 9.0], np.float32),
    radius=np.array([0.375, 0.5625, 0.625, 0.5, 0.375, 0.625], np.float32),
    damage=np.array([9.0, 10.0, 13.0, 8.0, 5.0, 12.0], np.float32),
    health=np.array([45.0, 125.0, 160.0, 150.0, 35.0, 80.0], np.float32),
    cooldown=np.array([0.61, 1.07, 1.87, 0.86, 0.5, 0.59], np.float32),
)
"""The numbers of JaxMARL's SMAX."""


def as_unit_types(unit_types: Any) -> UnitTypes:
    """Unit types as arrays.

    Raises:
        InvalidValueError: not `UnitTypes`, or not one number for each type of unit.
    """
    if not isinstance(unit_types, UnitTypes):
        raise InvalidValueError(f"unit_types={reprlib.repr(unit_types)} must be UnitTypes.")
    what = f"one for each of {', '.join(UNIT_NAMES)}"
    return UnitTypes(
        **{
            name: require_array(f"unit_types: {name}", values, (len(UNIT_NAMES),), what)
            for name, values in unit_types._asdict().items()
        }
    )


@dataclass(frozen=True)
class Scenario:
    """Two armies and how they are set up.

    Args:
        allies, enemies: the type of each unit, names of `UNIT_NAMES`.
        random_types: draw the types of each episode, the same for both armies; those given count not.
        random_positions: start as in SMACv2, one army around the other or as mirror images, instead
            of face to face.

    Raises:
        InvalidValueError: an empty army, or an unknown type of unit.

    Example:
        >>> Scenario(allies=("marine",) * 2, enemies=("zealot",)).enemies
        ('zealot',)
    """

    allies: tuple[str, ...]
    enemies: tuple[str, ...]
    random_types: bool = False
    random_positions: bool = False

    def __post_init__(self):
        for army in ("allies", "enemies"):
            units = tuple(getattr(self, army))
            object.__setattr__(self, army, units)
            if not units:
                raise InvalidValueError(f"Scenario: {army}=() must have at least one unit.")
            for unit in units:
                if unit not in UNIT_NAMES:
                    raise InvalidValueError(
                        f"Scenario: {army} has a unit {unit!r}, which is none of "
                        f"{', '.join(UNIT_NAMES)}.{did_you_mean(str(unit), UNIT_NAMES)}"
                    )

    @property
    def unit_type(self) -> np.ndarray:
        """The index of each unit's type in `UNIT_NAMES`, allies first; int32."""
        return np.array([UNIT_NAMES.index(unit) for unit in self.allies + self.enemies], np.int32)


def _marines(count: int) -> tuple[str, ...]:
    return ("marine",) * count


def _protoss(stalkers: int, zealots: int) -> tuple[str, ...]:
    return ("stalker",) * stalkers + ("zealot",) * zealots


def _drawn(count: int) -> Scenario:
    return Scenario(_marines(count), _marines(count), random_types=True, random_positions=True)


SCENARIOS = {
    "3m": Scenario(_marines(3), _marines(3)),
    "2s3z": Scenario(_protoss(2, 3), _protoss(2, 3)),
    "25m": Scenario(_marines(25), _marines(25)),
    "3s5z": Scenario(_protoss(3, 5), _protoss(3, 5)),
    "8m": Scenario(_marines(8), _marines(8)),
    "5m_vs_6m": Scenario(_marines(5), _marines(6)),
    "10m_vs_11m": Scenario(_marines(10), _marines(11)),
    "27m_vs_30m": Scenario(_marines(27), _marines(30)),
    "3s5z_vs_3s6z": Scenario(_protoss(3, 5), _protoss(3, 6)),
    "3s_vs_5z": Scenario(_protoss(3, 0), _protoss(0, 5)),
    "6h_vs_8z": Scenario(("hydralisk",) * 6, _protoss(0, 8)),
    "smacv2_5_units": _drawn(5),
    "smacv2_10_units": _drawn(10),
    "smacv2_20_units": _drawn(20),
}
"""The scenarios of JaxMARL's SMAX by name; z is a zealot in them, s a stalker, h a hydralisk."""


def find_scenario(scenario: str | Scenario) -> Scenario:
    """The scenario itself or the one of that name.

    Raises:
        UnknownNameError: there is none of that name; near ones are suggested.
    """
    if isinstance(scenario, Scenario):
        return scenario
    if not isinstance(scenario, str) or scenario not in SCENARIOS:
        names = ", ".join(SCENARIOS)
        raise unknown_name("scenario", str(scenario), SCENARIOS, f"{names}, or give a Scenario")
    return SCENARIOS[scenario]
