"""The switch riddle: prisoners who share but a light bulb find out when all have been in its room."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from kiloworlds.core.checks import require_count, require_flag, require_number
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.random import MOST_INDICES, random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.toy_text.grid import GridPicture

_SWITCH, _TELL = 1, 2
_FEWEST = 3
_COLUMNS = 10  # of the picture


class SwitchRiddleState(NamedTuple):
    """The bulb, who is in the room, who has been there before, and the days that have passed."""

    bulb: Bool[Array, ""]
    in_room: Int[Array, ""]
    has_been: Bool[Array, " A"]
    day: Int[Array, ""]


class SwitchRiddle(MultiAgentEnvironment):
    """The riddle of the hundred prisoners (here `num_agents`), as the jaxmarl package plays it.

    Every day one prisoner, drawn at random, is in a room with a light bulb; nobody else sees the bulb.
    Whoever is in the room may say that by now all have been there. If that is true all are freed, else
    all die.

    Observation: `[in the room, bulb lit]` as 0 or 1, float32; the bulb reads 0 outside the room.
    Action: 0 nothing, 1 switches the bulb, 2 tells; only that of the prisoner in the room counts.
    Reward, the same for all: `reward_all_live` for telling the truth, `reward_all_die` for telling too
    early, else 0.
    Episode end: terminates when somebody tells, and on the last day, `4 num_agents - 6` unless told
    otherwise. The last day belongs to the riddle, after it nothing follows: it is no truncation.
    Info: `won`, whether all were freed in this step.

    Differences: none in the rules. jaxmarl's observations are integers.

    Args:
        num_agents: the prisoners, 3 or more.
        initial_bulb_state: whether the bulb is lit at first.
        reward_all_live, reward_all_die: scalars, or `[N]` for N different environments.
        last_day: after how many steps the riddle is over; None for `4 num_agents - 6`.

    Raises:
        InvalidValueError: fewer than 3 prisoners, or no days.

    Reference: J. Foerster, Y. Assael, N. de Freitas, S. Whiteson, "Learning to Communicate with Deep
    Multi-Agent Reinforcement Learning" (2016), arXiv:1605.06676.
    """

    num_prisoners: int = eqx.field(static=True)
    last_day: int = eqx.field(static=True)
    initial_bulb_state: bool = eqx.field(static=True)
    reward_all_live: Float[ArrayLike, ""]
    reward_all_die: Float[ArrayLike, ""]

    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("nothing", "switch", "tell")

    def __init__(
        self,
        num_agents: int = 3,
        initial_bulb_state: bool = False,
        reward_all_live: Float[ArrayLike, ""] = 1.0,
        reward_all_die: Float[ArrayLike, ""] = -1.0,
        last_day: int | None = None,
    ):
        require_number("num_agents", num_agents, _FEWEST, MOST_INDICES, whole=True)
        require_flag("initial_bulb_state", initial_bulb_state)
        self.num_prisoners = int(num_agents)
        self.last_day = 4 * num_agents - 6 if last_day is None else last_day
        require_count("last_day", self.last_day)
        self.initial_bulb_state = bool(initial_bulb_state)
        self.reward_all_live, self.reward_all_die = reward_all_live, reward_all_die

    def reset(self, key: Key[Array, ""]) -> tuple[SwitchRiddleState, Float[Array, "A 2"]]:
        state = SwitchRiddleState(
            jnp.full((), self.initial_bulb_state),
            random_index(key, self.num_prisoners),
            jnp.zeros(self.num_prisoners, bool),
            jnp.int32(0),
        )
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: SwitchRiddleState, action: Int[Array, " A"]
    ) -> tuple[SwitchRiddleState, Step]:
        here = state.in_room == jnp.arange(self.num_prisoners)
        acts = jnp.where(here, action, 0).sum()
        has_been = state.has_been | here
        all_have = has_been.all()
        tells, day = acts == _TELL, state.day + 1
        state = SwitchRiddleState(
            state.bulb ^ (acts == _SWITCH), random_index(key, self.num_prisoners), has_been, day
        )
        spoken = jnp.where(all_have, self.reward_all_live, self.reward_all_die)
        reward = jnp.where(tells, spoken, 0.0).astype(jnp.float32)
        return state, Step(
            self.observe(state),
            jnp.broadcast_to(reward, (self.num_prisoners,)),
            tells | (day >= self.last_day),
            jnp.zeros((), bool),
            {"won": tells & all_have},
        )

    def reset_info(self, state: SwitchRiddleState) -> dict[str, Any]:
        return {"won": jnp.zeros((), bool)}

    def observe(self, state: SwitchRiddleState) -> Float[Array, "A 2"]:
        """What all prisoners observe."""
        entries = np.arange(2 * self.num_prisoners)
        lit = (entries % 2 == 0) | state.bulb
        seen = (entries // 2 == state.in_room) & lit
        return seen.astype(jnp.float32).reshape(self.num_prisoners, 2)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        return (
            AgentKind.numbered("prisoner", self.num_prisoners, Box(0.0, 1.0, (2,)), Discrete(3)),
        )

    def render(self, state: SwitchRiddleState) -> np.ndarray:
        """The room with its bulb above, the prisoners below; a tick for those who have been there.

        The one in the room stands beneath the bulb, and leaves a gap below.
        """
        columns = min(_COLUMNS, self.num_prisoners)
        rows = 2 + -(-self.num_prisoners // columns)
        picture = GridPicture(rows, columns, background="#f1f5f9")
        canvas, middle = picture.canvas, columns / 2
        lit = bool(state.bulb)
        room = "#fef3c7" if lit else "#334155"
        canvas.rectangle(picture.point(1.9, middle - 1.4), picture.point(0.1, middle + 1.4), room)
        cord = picture.point(0.1, middle), picture.point(0.35, middle)
        canvas.line(*cord, "#64748b" if lit else "#cbd5e1", width=3)
        canvas.circle(picture.point(0.52, middle), 0.2, "#94a3b8")
        canvas.circle(picture.point(0.52, middle), 0.17, "#facc15" if lit else "#1e293b")
        here, has_been = int(state.in_room), np.asarray(state.has_been)
        day = f"day {int(state.day)} of {self.last_day}"
        text = picture.point(1.72, middle + 1.3)
        canvas.text(text, day, "#1e293b" if lit else "#f1f5f9", size=11, align="right")
        for prisoner in range(self.num_prisoners):
            row, column = divmod(prisoner, columns)
            place = (1.2, middle) if prisoner == here else (row + 2.4, column + 0.5)
            _draw_prisoner(picture, *place, str(prisoner), has_been[prisoner])
        return canvas.pixels()

    def describe(self, state: SwitchRiddleState) -> str:
        """The bulb, who is in the room, and who has been there before."""
        visitors = map(str, np.flatnonzero(state.has_been))
        return (
            f"Day {int(state.day)} of {self.last_day}. "
            f"Prisoner {int(state.in_room)} is in the room, the bulb is "
            f"{'lit' if state.bulb else 'dark'}.\n"
            f"Have been there before: {', '.join(visitors) or 'none'}."
        )


def _draw_prisoner(
    picture: GridPicture, row: float, column: float, name: str, has_been: bool
) -> None:
    canvas = picture.canvas
    body, head = ("#0072b2", "#fdba8c") if has_been else ("#94a3b8", "#fdba8c")
    canvas.circle(picture.point(row - 0.18, column), 0.15, head)
    canvas.line(picture.point(row + 0.16, column), picture.point(row + 0.3, column), body, width=22)
    canvas.text(picture.point(row + 0.23, column), name, "#ffffff", size=12)
    if has_been:
        tick = [(-0.16, 0.22), (-0.1, 0.28), (-0.26, 0.4)]
        points = [picture.point(row + y, column + x) for y, x in tick]
        canvas.polyline(points, "#009e73", width=4)
