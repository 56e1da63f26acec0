"""Cooks that serve soups in any kitchen of Overcooked, to play it for tests."""

import functools

import jax
import numpy as np

from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.overcooked.counters import items_by_cell
from kiloworlds.envs.multiagent.overcooked.items import COOKED, INGREDIENT, PLATE
from kiloworlds.envs.multiagent.overcooked.kitchen import DIRECTIONS
from kiloworlds.envs.multiagent.overcooked.layouts import FLOOR, GOAL, PLATES

QUICK = {"xla_backend_optimization_level": 0}
"""Compiles without optimisation, which takes most of the time of so small a program."""


def items_at(kitchen, state):
    """The item on each counter and in each pot, by cell."""
    items = np.zeros(len(kitchen.cells), np.int64)
    for cell, item in items_by_cell(kitchen, state.counters).items():
        items[cell] = item
    items[list(kitchen.pots)] = [int(in_pot) for in_pot in state.pots]
    return items


class Cooks:
    """Agents that do what is useful next, and now and then anything; they cook what is asked for, or
    always `serves`."""

    def __init__(self, env, seed, whim=0.1, serves=None):
        self.env, self.whim, self.serves = env, whim, serves
        self.kitchen = env.kitchen
        self.random = np.random.default_rng(seed)
        self.columns = self.kitchen.shape[1]
        self.offsets = (-self.columns, self.columns, 1, -1)
        self.floor = {cell for cell, letter in enumerate(self.kitchen.cells) if letter == FLOOR}

    def actions(self, state):
        """An action for each agent of a state of one environment, on the host."""
        items = items_at(self.kitchen, state)
        return np.array(
            [self._action(state, items, agent) for agent in range(self.env.num_agents)], np.int32
        )

    def _action(self, state, items, agent):
        names = self.env.action_names
        if self.random.random() < self.whim:
            return int(self.random.integers(len(names)))
        targets = self._targets(state, items, agent)
        cell, facing = int(state.cells[agent]), int(state.facings[agent])
        if cell + self.offsets[facing] in targets:
            return names.index("interact")
        for direction, offset in enumerate(self.offsets):
            if cell + offset in targets:
                return names.index(DIRECTIONS[direction])
        others = {int(other) for other in state.cells} - {cell}
        for blocked in (others, set()):
            direction = self._way(cell, targets, blocked)
            if direction is not None:
                return names.index(DIRECTIONS[direction])
        return names.index("stay")

    def _way(self, cell, targets, blocked):
        """The first direction of a shortest way to a cell beside a target."""
        reached, paths = {cell}, [(cell, None)]
        for here, first in paths:
            for direction, offset in enumerate(self.offsets):
                there = here + offset
                if there in targets and first is not None:
                    return first
                if there in self.floor and there not in reached and there not in blocked:
                    reached.add(there)
                    paths.append((there, direction if first is None else first))
        return None

    def _reachable(self, agent_cell):
        room, waiting = {agent_cell}, [agent_cell]
        while waiting:
            cell = waiting.pop()
            for offset in self.offsets:
                if cell + offset in self.floor and cell + offset not in room:
                    room.add(cell + offset)
                    waiting.append(cell + offset)
        return room | {cell + offset for cell in room for offset in self.offsets}

    def _targets(self, state, items, agent):
        kitchen, cells = self.kitchen, self.kitchen.cells
        held = int(state.held[agent])
        recipe = int(state.recipe) if self.serves is None else self.serves
        near = self._reachable(int(state.cells[agent]))
        free = {cell for cell in kitchen.counters if cell in near and items[cell] == 0}
        shared = {
            cell
            for cell in free
            if all(cell in self._reachable(int(other)) for other in state.cells)
        }
        put_down = shared or free
        pots = list(zip(kitchen.pots, map(int, state.pots), map(int, state.cooking), strict=True))

        def lacking(in_pot):
            return [
                i
                for i in range((recipe.bit_length() - 1) // 2)
                if (in_pot >> 2 * i + 2 & 3) < (recipe >> 2 * i + 2 & 3)
            ]

        if held & COOKED:
            goals = {c for c in near if cells[c] == GOAL}
            return goals or put_down
        if held == PLATE:
            ready = {c for c, in_pot, left in pots if c in near and in_pot & COOKED}
            cooking = {c for c, in_pot, left in pots if c in near and left}
            return ready or (cooking if self.random.random() < 0.5 else set()) or put_down
        if held:
            ingredient = (held.bit_length() - 3) // 2
            wanting = {
                c
                for c, in_pot, left in pots
                if c in near and not left and not in_pot & COOKED and ingredient in lacking(in_pot)
            }
            return wanting or put_down
        waiting = {
            c
            for c, in_pot, left in pots
            if c in near and in_pot and not left and not in_pot & COOKED and not lacking(in_pot)
        }
        if waiting and getattr(self.env, "start_cooking_interaction", False):
            return waiting
        soups = {c for c in kitchen.counters if c in near and items[c] & COOKED}
        if soups and any(cells[c] == GOAL for c in near):
            return soups
        plates_out = sum(int(other) == PLATE for other in state.held)
        in_use = sum(left > 0 or bool(in_pot & COOKED) for _, in_pot, left in pots)
        if plates_out < in_use:
            plates = {
                c
                for c in near
                if cells[c] == PLATES or (items[c] == PLATE and c not in kitchen.pots)
            }
            if plates:
                return plates
        wanted = {
            i
            for _, in_pot, left in pots
            if not left and not in_pot & COOKED
            for i in lacking(in_pot)
        }
        sources = {
            c
            for c in near
            if (cells[c].isdigit() and int(cells[c]) in wanted)
            or (c not in kitchen.pots and any(items[c] == INGREDIENT << 2 * i for i in wanted))
        }
        return sources or {c for c in near if cells[c].isdigit() and not wanted}


def play(env, steps, seed, whim=0.1, start=None, serves=None):
    """Lets cooks play.

    Returns:
        The states, the first included, the steps, and the actions, as lists of host values.
    """
    cooks = Cooks(env, seed, whim, serves)
    key = fast_key(seed)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def advance(number, state, action):
        return env.step(jax.random.fold_in(key, number), state, action)

    state = env.reset(key)[0] if start is None else start
    states, results, actions = [jax.device_get(state)], [], []
    for number in range(steps):
        actions.append(cooks.actions(states[-1]))
        state, result = jax.device_get(advance(number, states[-1], actions[-1]))
        states.append(state)
        results.append(result)
    return states, results, actions
