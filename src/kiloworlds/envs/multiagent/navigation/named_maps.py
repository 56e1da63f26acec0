"""The maps on which navigation is tested: JaxNav's, with its poses.

Reference: A. Rutherford et al., "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery" (2024); the maps are those of its code, by their names there.
"""

import math

from kiloworlds.envs.multiagent.navigation.maps import NavigationMap

# Headings have the two decimals of the originals.
_RIGHT, _DOWN, _LEFT = 0.0, -1.57, 3.14
_LOWER_LEFT, _UPPER_RIGHT, _UPPER_LEFT, _LOWER_RIGHT = (
    (1.5, 1.5),
    (5.5, 5.5),
    (1.5, 5.5),
    (5.5, 1.5),
)
_HALL = ("#######", *(["#.....#"] * 5), "#######")
_MAZE = (
    "###########",
    "#.#.#.....#",
    "#.#....#..#",
    "#.#.#.....#",
    "#...#..##.#",
    "#..#####..#",
    "###########",
)
_CHICANE = (
    "##############",
    "#...##.......#",
    "#...##..##...#",
    "#.......##...#",
    "##############",
)
_NARROW_CHICANE = (
    "##############",
    "#...###......#",
    "#...###.##...#",
    "#.......##...#",
    "##############",
)
_FOUR_STARTS = (
    (2.0, 2.5, _RIGHT),
    (2.0, 4.5, _RIGHT),
    (8.0, 2.5, _LEFT),
    (8.0, 4.5, _LEFT),
)
_FOUR_GOALS = ((8.0, 2.5), (8.0, 4.5), (2.0, 2.5), (2.0, 4.5))
_EIGHT_HEIGHTS = (2.0, 3.5, 5.5, 7.0)


def _circle(robots: int, radius: int) -> NavigationMap:
    """Robots on a circle in a hall, each with its goal on the opposite side."""
    size, center = 3 * radius, 1.5 * radius

    def around(angle: float) -> tuple[float, float]:
        return center + radius * math.cos(angle), center + radius * math.sin(angle)

    angles = [2 * math.pi * robot / robots for robot in range(robots)]
    hall = ("#" * size, *(["#" + "." * (size - 2) + "#"] * (size - 2)), "#" * size)
    starts = tuple((*around(angle), angle - math.pi) for angle in angles)
    return NavigationMap(hall, starts, tuple(around(angle + math.pi) for angle in angles))


MAPS = {
    "blank": NavigationMap(_HALL, ((*_LOWER_LEFT, _RIGHT),), (_UPPER_RIGHT,)),
    "middle": NavigationMap(
        ("#######", "#.....#", *(["#.###.#"] * 3), "#.....#", "#######"),
        ((*_LOWER_LEFT, _RIGHT),),
        (_UPPER_RIGHT,),
    ),
    "single-1": NavigationMap(
        (
            "###########",
            "#......#..#",
            "##.##.###.#",
            "##........#",
            "#..##.###.#",
            "##........#",
            "###########",
        ),
        ((9.5, 1.5, 0.78),),
        ((1.5, 5.5),),
    ),
    "single-2": NavigationMap(_MAZE, ((8.5, 1.5, _LEFT),), ((1.5, 5.5),)),
    "single-3": NavigationMap(_MAZE, ((9.1, 1.5, _LEFT),), ((1.5, 5.5),)),
    "cross-2": NavigationMap(
        _HALL,
        ((*_LOWER_LEFT, 0.78), (*_UPPER_RIGHT, 3.92)),
        (_UPPER_RIGHT, _LOWER_LEFT),
    ),
    "cross-uneven-2": NavigationMap(
        _HALL, ((2.0, 2.5, 0.78), (*_UPPER_RIGHT, 3.92)), (_UPPER_RIGHT, _LOWER_LEFT)
    ),
    "cross-4": NavigationMap(
        _HALL,
        (
            (*_LOWER_LEFT, 0.78),
            (*_UPPER_RIGHT, 3.92),
            (*_UPPER_LEFT, -0.78),
            (*_LOWER_RIGHT, -3.92),
        ),
        (_UPPER_RIGHT, _LOWER_LEFT, _LOWER_RIGHT, _UPPER_LEFT),
    ),
    "circle-10": _circle(robots=10, radius=6),
    "long-corridor-2": NavigationMap(
        (
            "##########",
            "#######..#",
            "#..####..#",
            "#........#",
            "#..####..#",
            "#######..#",
            "##########",
        ),
        ((1.5, 3.5, _RIGHT), (8.0, 3.5, _LEFT)),
        ((6.0, 3.5), (1.5, 3.5)),
    ),
    "corner-2": NavigationMap(
        ("#######", *(["#####.#"] * 3), "####..#", "#.....#", "#######"),
        ((*_LOWER_LEFT, _RIGHT), (*_UPPER_RIGHT, _DOWN)),
        (_UPPER_RIGHT, _LOWER_LEFT),
    ),
    "corridor-4": NavigationMap(
        (
            "##########",
            "#...##...#",
            "#...##...#",
            "#........#",
            "#...##...#",
            "#...##...#",
            "##########",
        ),
        _FOUR_STARTS,
        _FOUR_GOALS,
    ),
    "corridor-8": NavigationMap(
        ("##########", *(["#...##...#"] * 3), "#........#", *(["#...##...#"] * 3), "##########"),
        (
            *((2.0, y, _RIGHT) for y in _EIGHT_HEIGHTS),
            *((8.0, y, _LEFT) for y in _EIGHT_HEIGHTS),
        ),
        (*((8.0, y) for y in _EIGHT_HEIGHTS), *((2.0, y) for y in _EIGHT_HEIGHTS)),
    ),
    "layby-4": NavigationMap(
        (
            "##########",
            "#..####..#",
            "#..##.#..#",
            "#........#",
            "#..#.##..#",
            "#..####..#",
            "##########",
        ),
        _FOUR_STARTS,
        _FOUR_GOALS,
    ),
    "chicane-2": NavigationMap(
        _CHICANE, ((2.5, 2.5, _RIGHT), (11.5, 2.5, _LEFT)), ((9.5, 3.5), (2.5, 2.5))
    ),
    "narrow-chicane-2a": NavigationMap(
        _NARROW_CHICANE, ((2.5, 2.5, _RIGHT), (11.5, 2.5, _LEFT)), ((9.5, 3.5), (2.5, 2.5))
    ),
    "narrow-chicane-2b": NavigationMap(
        _NARROW_CHICANE, ((2.5, 1.5, _RIGHT), (11.5, 2.5, _LEFT)), ((7.5, 1.5), (2.5, 2.5))
    ),
    "chicane-4": NavigationMap(
        _CHICANE,
        (
            (2.5, 1.75, _RIGHT),
            (2.5, 3.25, _RIGHT),
            (11.5, 1.75, _LEFT),
            (11.5, 3.25, _LEFT),
        ),
        ((9.5, 3.5), (11.5, 1.75), (2.5, 3.25), (4.5, 1.5)),
    ),
}
"""By name; the number in a name is that of its robots."""
