"""SMAX: two armies of StarCraft units fight, each unit an agent."""

from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from kiloworlds.core.checks import require_choice, require_flag, require_number, require_numbers
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.battle import (
    conic,
    describing,
    drawing,
    heuristic,
    observing,
    orders,
    rules,
    starts,
)
from kiloworlds.envs.multiagent.battle.batching import batch_last
from kiloworlds.envs.multiagent.battle.scenarios import (
    STARCRAFT_UNITS,
    UNIT_NAMES,
    Scenario,
    UnitTypes,
    as_unit_types,
    find_scenario,
)

_MOST_INSTANTS = 1000  # of an action


class BattleState(NamedTuple):
    """Arrays `[U]` over the units of both armies, allies first.

    `health` in points, `cooldown` in seconds until the unit can shoot; `move_x`, `move_y` and `target`
    (the number of a unit of the other army, -1 for none) are its last orders, `shot` says whether it
    has shot since. `memory` is the built-in enemy's.
    """

    x: Float[Array, " U"]
    y: Float[Array, " U"]
    health: Float[Array, " U"]
    cooldown: Float[Array, " U"]
    unit_type: Int[Array, " U"]
    move_x: Float[Array, " U"]
    move_y: Float[Array, " U"]
    target: Int[Array, " U"]
    shot: Bool[Array, " U"]
    memory: heuristic.Memory | None


class Draws(NamedTuple):
    """What is random in a step.

    `delay` (s) is added to the cooldown of a unit that shoots; `chase` and `choice`, in (0, 1], choose
    whom each built-in enemy walks towards, and whom it shoots at.
    """

    delay: Float[Array, " U"]
    chase: Float[Array, " E"]
    choice: Float[Array, " E"]


class Battle(MultiAgentEnvironment):
    """JaxMARL's SMAX: armies of StarCraft II units fight, by default against a built-in enemy.

    Every unit is an agent. An action holds for half a second, `world_steps_per_env_step` instants of
    `time_per_step`: in each instant all units shoot from where they stand (a shot hits at once and
    then the weapon cools down), move, die at the border of the map and push apart those they overlap.

    Observation (`observation_type="unit_list"`): float32, for each other unit, own army first (13
    numbers, zeros if it is dead or out of sight): health as part of the full one, position relative to
    oneself as part of the sight range (x, y), last movement (x, y), last attack as part of the last
    action's number, cooldown as part of the full one, type (6 bits: marine, marauder, stalker, zealot,
    zergling, hydralisk). Then of oneself (10 numbers): health, position as part of the map (x, y),
    cooldown, type. An ally lists allies and enemies in their order, an enemy all in reverse. With
    "conic": for each of 32 sectors, counter-clockwise from the west, the same 13 numbers of the first
    two units in it; then of oneself.
    Action: 0 north, 1 east, 2 south, 3 west, 4 stop, 5 + k attack unit k of the other army: an ally the
    enemy k, an enemy the ally k counted from the last. Attacks are legal on living units in range.
    Global state: of every unit health (part), position, cooldown (s) and type bits, zeros of the dead;
    then the army of each (0 or 1), then the type of each (0 to 5).
    Reward: the health that the other army lost, as part of the full one, averaged over its units, and
    `won_battle_bonus` for the step that leaves the other army dead and the own not. The allies' is the
    team's: the dead are paid too. With `use_self_play_reward` only the bonus counts, and the loser
    pays it.
    Episode end: terminates when an army is dead; cut after 100 steps.
    Info: `won`, whether the allies won in this step (with a learned opponent also `enemy_won`).

    With `opponent="learned"` there are two kinds of agents, "ally" and "enemy", and nothing built in.

    Differences from JaxMARL: a unit's random weapon delay is drawn once for an action, in which it
    cannot shoot twice; all actions of the dead are legal (there: only stop); with a learned opponent
    units get nothing once they are dead; with "conic" the first ally is seen as others are (there:
    never) and the dead are not (there: they are); in an army larger than the other all types are drawn
    (there: those beyond are marines).

    Args:
        scenario: the name of a scenario, such as "3s5z", or a `Scenario`.
        opponent: "heuristic" for the built-in enemy, "learned" for enemies that are agents.
        observation_type: "unit_list" or "conic".
        attack_mode: whom the built-in enemy shoots at first: the "closest" in range or a "random" one.
        enemy_shoots: whether the built-in enemy shoots at all.
        see_enemy_actions: whether movement and attacks of the other army are observed.
        walls_cause_death: whether the border of the map kills.
        use_self_play_reward: whether the armies' rewards add up to zero.
        world_steps_per_env_step: instants of an action.
        map_width, map_height: size of the map.
        time_per_step: seconds of an instant.
        won_battle_bonus: reward of the army that wins.
        unit_types: what units can do.

    Raises:
        UnknownNameError: there is no scenario of that name.
        InvalidValueError: another setting that does not exist, or unit types not six of each.

    Reference: A. Rutherford et al., "JaxMARL: Multi-Agent RL Environments and Algorithms in JAX"
    (2023); scenarios after M. Samvelyan et al., "The StarCraft Multi-Agent Challenge" (2019), and
    B. Ellis et al., "SMACv2" (2022).
    """

    scenario: str | Scenario = eqx.field(static=True, default="3m")
    opponent: Literal["heuristic", "learned"] = eqx.field(static=True, default="heuristic")
    observation_type: Literal["unit_list", "conic"] = eqx.field(static=True, default="unit_list")
    attack_mode: Literal["closest", "random"] = eqx.field(static=True, default="closest")
    enemy_shoots: bool = eqx.field(static=True, default=True)
    see_enemy_actions: bool = eqx.field(static=True, default=True)
    walls_cause_death: bool = eqx.field(static=True, default=True)
    use_self_play_reward: bool = eqx.field(static=True, default=False)
    world_steps_per_env_step: int = eqx.field(static=True, default=8)
    map_width: float | Float[Array, ""] = 32.0
    map_height: float | Float[Array, ""] = 32.0
    time_per_step: float | Float[Array, ""] = 1.0 / 16  # s
    won_battle_bonus: float | Float[Array, ""] = 1.0
    unit_types: UnitTypes = STARCRAFT_UNITS

    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[Any] = property(lambda self: self.opponent == "heuristic")
    render_fps: ClassVar[float | None] = 10.0

    def __post_init__(self):
        self.unit_types = as_unit_types(self.unit_types)

    def __check_init__(self):
        find_scenario(self.scenario)
        require_choice("opponent", self.opponent, ("heuristic", "learned"))
        require_choice("observation_type", self.observation_type, ("unit_list", "conic"))
        require_choice("attack_mode", self.attack_mode, ("closest", "random"))
        for name in (
            "enemy_shoots",
            "see_enemy_actions",
            "walls_cause_death",
            "use_self_play_reward",
        ):
            require_flag(name, getattr(self, name))
        steps = self.world_steps_per_env_step
        require_number("world_steps_per_env_step", steps, 1, _MOST_INSTANTS, whole=True)
        for name in ("map_width", "map_height"):
            require_numbers(name, getattr(self, name), starts.SMALLEST_MAP)
        require_numbers("time_per_step", self.time_per_step, 0.0)

    @property
    def armies(self) -> Scenario:
        """Who fights whom."""
        return find_scenario(self.scenario)

    @property
    def num_allies(self) -> int:
        return len(self.armies.allies)

    @property
    def num_enemies(self) -> int:
        return len(self.armies.enemies)

    def reset(self, key: Key[Array, ""]) -> tuple[BattleState, PyTree]:
        position_key, type_key = jax.random.split(key)
        armies = self.armies
        x, y = starts.draw_positions(position_key, armies, self.map_width, self.map_height)
        unit_type = starts.draw_types(type_key, armies)
        abilities = self._abilities(unit_type)
        alive, none = jnp.ones(x.shape, bool), jnp.zeros(x.shape)
        x, y = batch_last(rules.push_apart, x.size**2)(x, y, alive, abilities.radius)
        memory = None
        if self.opponent == "heuristic":
            enemy = slice(self.num_allies, None)
            across, along = self.map_width - x[enemy], self.map_height - y[enemy]
            memory = heuristic.Memory(across, along, jnp.full(across.shape, -1, jnp.int32))
        state = BattleState(
            x,
            y,
            jnp.asarray(abilities.health, jnp.float32),
            none,
            unit_type,
            none,
            none,
            jnp.full(x.shape, -1, jnp.int32),
            ~alive,
            memory,
        )
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: BattleState, action: PyTree
    ) -> tuple[BattleState, Step]:
        num_units, num_enemies = self.num_allies + self.num_enemies, self.num_enemies
        draws = jax.random.uniform(key, (num_units + 2 * num_enemies,))
        delay, chase, choice = jnp.split(draws, [num_units, num_units + num_enemies])
        # After StarCraft II, whose weapons wait a random time longer, at most two instants, or up to
        # one less.
        delay = (3 * delay - 1) * self.time_per_step
        return self.step_with(Draws(delay, 1 - chase, 1 - choice), state, action)

    def step_with(
        self, draws: Draws, state: BattleState, action: PyTree
    ) -> tuple[BattleState, Step]:
        """`step`, with all that is random given."""
        num_units = self.num_allies + self.num_enemies
        acting = self.alive(state)
        sizes = (self.map_width, self.map_height, self.time_per_step)
        state, outcome = batch_last(self._play, num_units**2)(
            state,
            action,
            draws,
            self._abilities(self._unit_type(state)),
            rules.Field(*(jnp.asarray(size, jnp.float32) for size in sizes)),
            jnp.asarray(self.won_battle_bonus, jnp.float32),
        )
        info = {"won": outcome.ally_won}
        if self.opponent == "heuristic":
            rewards = jnp.broadcast_to(outcome.ally_reward, (self.num_allies,))
        else:
            is_ally = np.arange(num_units) < self.num_allies
            rewards = jnp.where(is_ally, outcome.ally_reward, outcome.enemy_reward)
            rewards = jnp.where(acting, rewards, 0.0)
            info["enemy_won"] = outcome.enemy_won
        never = jnp.zeros_like(outcome.over)
        return state, Step(self.observe(state), rewards, outcome.over, never, info)

    def _play(
        self,
        state: BattleState,
        action: PyTree,
        draws: Draws,
        abilities: rules.Abilities,
        field: rules.Field,
        won_battle_bonus: Float[Array, " B"],
    ) -> tuple[BattleState, rules.Outcome]:
        """The orders of both armies and the fight that follows, for a batch (see `batching`)."""
        num_allies = self.num_allies
        units, memory = rules.Units(state.x, state.y, state.health, state.cooldown), state.memory
        if memory is not None:
            enemy_action, memory = heuristic.decide(
                jax.tree.map(lambda leaf: leaf[num_allies:], units),
                jax.tree.map(lambda leaf: leaf[num_allies:], abilities),
                jax.tree.map(lambda leaf: leaf[:num_allies][::-1], units),
                memory,
                draws.chase,
                draws.choice,
                self.enemy_shoots,
                self.attack_mode,
            )
            actions = jnp.concatenate([action, enemy_action])
        else:
            actions = jnp.concatenate([action["ally"], action["enemy"]])
        ordered = orders.orders_of(actions, num_allies)
        after, shot = rules.fight(
            units,
            ordered,
            abilities,
            field,
            draws.delay,
            num_allies,
            self.world_steps_per_env_step,
            self.walls_cause_death,
        )
        outcome = rules.judge(
            units.health,
            after.health,
            abilities.health,
            won_battle_bonus,
            num_allies,
            self.use_self_play_reward,
        )
        return BattleState(*after, state.unit_type, *ordered, shot, memory), outcome

    def _unit_type(self, state: BattleState) -> Int[Array, " U"] | np.ndarray:
        """The state's types: where they never change, as a constant, which compiles to less."""
        armies = self.armies
        return state.unit_type if armies.random_types else armies.unit_type

    def _abilities(self, unit_type: Int[Array, " U"] | np.ndarray) -> rules.Abilities:
        def of(values: Float[Array | np.ndarray, "6"]) -> Any:
            if isinstance(unit_type, np.ndarray):
                return values[unit_type]
            chosen = values[0]
            for index in range(1, len(UNIT_NAMES)):
                chosen = jnp.where(unit_type == index, values[index], chosen)
            return chosen

        fields = rules.Abilities._fields
        return rules.Abilities(*(of(getattr(self.unit_types, name)) for name in fields))

    def alive(self, state: BattleState) -> Bool[Array, " A"]:
        alive = state.health > 0
        return alive[: self.num_allies] if self.opponent == "heuristic" else alive

    def _sight(self, state: BattleState) -> observing.Sight:
        unit_type = self._unit_type(state)
        abilities = self._abilities(unit_type)
        attack = orders.attack_action(state.target, self.num_allies)
        return observing.Sight(
            state.x,
            state.y,
            state.health > 0,
            state.health / abilities.health,
            jnp.clip(state.cooldown / abilities.cooldown, 0.0, 1.0),
            state.move_x,
            state.move_y,
            attack / orders.last_actions(self.num_allies, self.num_enemies).astype(np.float32),
            unit_type,
            abilities.sight_range,
        )

    def observe(self, state: BattleState) -> PyTree:
        sight = self._sight(state)
        x, y = state.x / self.map_width, state.y / self.map_height
        own = observing.unit_features(sight, x, y, sight.cooldown)
        view = conic.conic if self.observation_type == "conic" else observing.unit_list
        num_allies = self.num_allies
        allies = view(sight, own[:num_allies], 0, self.see_enemy_actions)
        if self.opponent == "heuristic":
            return allies
        enemies = view(sight, own[num_allies:], num_allies, self.see_enemy_actions)
        return {"ally": allies, "enemy": enemies}

    def available_actions(self, state: BattleState) -> PyTree:
        attack_range = self._abilities(self._unit_type(state)).attack_range
        units = orders.Placed(state.x, state.y, state.health > 0)
        num_allies = self.num_allies
        allies = orders.Placed(*(leaf[:num_allies] for leaf in units))
        enemies = orders.Placed(*(leaf[num_allies:] for leaf in units))
        legal = orders.legal_actions(allies, attack_range[:num_allies], enemies)
        if self.opponent == "heuristic":
            return legal
        targets = orders.Placed(*(leaf[::-1] for leaf in allies))
        return {
            "ally": legal,
            "enemy": orders.legal_actions(enemies, attack_range[num_allies:], targets),
        }

    @property
    def global_state_space(self) -> Box:
        count = (self.num_allies + self.num_enemies) * (observing.OWN_FEATURES + 2)
        return Box(-np.inf, np.inf, (count,))

    def global_state(self, state: BattleState) -> Float[Array, " S"]:
        sight = self._sight(state)
        features = observing.unit_features(sight, state.x, state.y, state.cooldown)
        is_enemy = np.arange(sight.x.shape[0]) >= self.num_allies
        types = jnp.asarray(sight.unit_type, jnp.float32)
        return jnp.concatenate([features.reshape(-1), is_enemy.astype(np.float32), types])

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each action means, those of the larger army's enemies included."""
        targets = range(max(self.num_allies, self.num_enemies))
        return (*orders.MOVES, *(f"attack {number}" for number in targets))

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        num_allies, num_enemies = self.num_allies, self.num_enemies
        is_conic = self.observation_type == "conic"
        num_seen = conic.SLOTS if is_conic else num_allies + num_enemies - 1
        seen = Box(*observing.observation_bounds(num_seen))
        ally_actions = Discrete(orders.FIRST_TARGET + num_enemies)
        allies = AgentKind.numbered("ally", num_allies, seen, ally_actions)
        if self.opponent == "heuristic":
            return (allies,)
        enemy_actions = Discrete(orders.FIRST_TARGET + num_allies)
        return allies, AgentKind.numbered("enemy", num_enemies, seen, enemy_actions)

    def reset_info(self, state: BattleState) -> dict[str, Any]:
        won = jnp.zeros_like(state.shot[0])
        return {"won": won} if self.opponent == "heuristic" else {"won": won, "enemy_won": won}

    def _scene(self, state: BattleState) -> describing.Scene:
        return describing.Scene(
            **{name: np.asarray(getattr(state, name)) for name in describing.ARRAYS},
            num_allies=self.num_allies,
            width=float(self.map_width),
            height=float(self.map_height),
            walls_cause_death=self.walls_cause_death,
            unit_types=UnitTypes(*(np.asarray(values) for values in self.unit_types)),
        )

    def render(self, state: BattleState) -> np.ndarray:
        """The map with both armies, health and shots, and a legend; 800 pixels wide."""
        return drawing.draw(self._scene(state))

    def describe(self, state: BattleState) -> str:
        """The whole battle: every unit with all that its player knows, and whom it can attack."""
        return describing.describe(self._scene(state))
