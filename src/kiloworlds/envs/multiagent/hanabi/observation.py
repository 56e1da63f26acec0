"""What the agents of Hanabi see: packed into words of bits and unpacked at once.

Letters in shapes: A agents, each with its own view of the table, H cards of a hand, P the agents from
the one who looks on. To unpack words is one simple loop for a compiler; a list of small arrays is not.
"""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from kiloworlds.envs.multiagent.hanabi import cards
from kiloworlds.envs.multiagent.hanabi.cards import Pile
from kiloworlds.envs.multiagent.hanabi.game import HanabiState, Rules, hint_of, wrapped

Field = tuple[UInt32[Array, "..."], int]
"""The value of some bits, the same for all views or `[A]`, and how many they are (32 at most)."""

_WORD = 32


def observation_size(rules: Rules) -> int:
    """How many numbers an agent observes."""
    hands = (rules.num_agents - 1) * rules.hand_size * rules.num_kinds + rules.num_agents
    deck = rules.deck_size - rules.num_dealt
    board = deck + rules.num_kinds + rules.max_info_tokens + rules.max_life_tokens
    attributes = rules.num_colors + rules.num_ranks
    move = 2 * rules.num_agents + 4 + attributes + 2 * rules.hand_size + rules.num_kinds + 2
    knowledge = rules.num_dealt * (rules.num_kinds + attributes)
    return hands + board + rules.deck_size + move + knowledge


def observations(rules: Rules, state: HanabiState, beliefs: bool) -> Float[Array, "A features"]:
    """What every agent sees of a state; with `beliefs` probabilities instead of possibilities."""
    fields = [
        *_hands(rules, state),
        *_board(rules, state),
        *_discards(rules, state.discards),
        *_last_move(rules, state),
    ]
    if not beliefs:
        fields += _knowledge(rules, state)
        return _floats(_unpacked(rules, fields))
    return jnp.concatenate([_floats(_unpacked(rules, fields)), _beliefs(rules, state)], axis=1)


def own_hands(rules: Rules, state: HanabiState) -> Float[Array, "A features"]:
    """What no agent sees: one-hot the cards in its own hand."""
    return _floats(_bits(state.hands, rules.num_kinds)).reshape(rules.num_agents, -1)


def legal_actions(rules: Rules, state: HanabiState) -> Bool[Array, "A actions"]:
    """The actions the agent whose turn it is may take; for the others only to wait."""
    is_mover = jnp.arange(rules.num_agents) == state.turn
    held = _bit_per_slot(state.hands != 0)
    others = _from_each(_union(state.hands))[:, 1:]
    colors, ranks = _colors_of(rules, others), _ranks_of(rules, others)
    can_tell = (is_mover & (state.information > 0))[:, None]
    fields = [
        (
            jnp.where(is_mover & (state.information < rules.max_info_tokens), held, 0),
            rules.hand_size,
        ),
        (jnp.where(is_mover, held, 0), rules.hand_size),
        *_each(jnp.where(can_tell, colors, 0), rules.num_colors),
        *_each(jnp.where(can_tell, ranks, 0), rules.num_ranks),
        ((~is_mover).astype(jnp.uint32), 1),
    ]
    return _unpacked(rules, fields) == 1


def _hands(rules: Rules, state: HanabiState) -> list[Field]:
    """The cards of the others, then who lacks a card."""
    hands = _from_each(state.hands)
    lacking = _from_each((state.hands == 0).any(axis=1))
    return [
        *_each(hands[:, 1:].reshape(rules.num_agents, -1), rules.num_kinds),
        (_bit_per_slot(lacking), rules.num_agents),
    ]


def _board(rules: Rules, state: HanabiState) -> list[Field]:
    grown_further = (state.fireworks >> 1) & ~rules.last_rank
    return [
        *_thermometer(cards.size(state.deck), rules.deck_size - rules.num_dealt),
        (state.fireworks & ~grown_further, rules.num_kinds),
        *_thermometer(state.information, rules.max_info_tokens),
        *_thermometer(state.lives, rules.max_life_tokens),
    ]


def _discards(rules: Rules, discards: Pile) -> list[Field]:
    """Per colour, for each rank a thermometer of its copies."""
    shifts = np.arange(rules.num_colors, dtype=np.uint32) * np.uint32(rules.num_ranks)
    of_colors = [layer >> shifts for layer in discards]
    bits = jnp.zeros(rules.num_colors, jnp.uint32)
    position = 0
    words: list[Field] = []
    for rank, copies in enumerate(rules.copies):
        for layer in of_colors[:copies]:
            bits = bits | ((layer >> np.uint32(rank)) & 1) << np.uint32(position)
            position += 1
    for color in range(rules.num_colors):
        words.append((bits[color], position))
    return words


def _last_move(rules: Rules, state: HanabiState) -> list[Field]:
    action, card, touched, scored, gained = state.last
    hint = hint_of(rules, action)
    plays = (action >= rules.hand_size) & (action < rules.first_color_hint)
    discards = (action >= 0) & (action < rules.hand_size)
    move_types = (plays, discards, hint.of_color, hint.of_rank)
    slot = jnp.where(plays, action - rules.hand_size, action)
    actor = wrapped(rules, state.turn - 1 - jnp.arange(rules.num_agents))
    target = wrapped(rules, actor + hint.offset)
    return [
        (_one_hot(actor, action >= 0), rules.num_agents),
        *((kind.astype(jnp.uint32), 1) for kind in move_types),
        (_one_hot(target, hint.of_color | hint.of_rank), rules.num_agents),
        (_one_hot(hint.value, hint.of_color), rules.num_colors),
        (_one_hot(hint.value, hint.of_rank), rules.num_ranks),
        (touched, rules.hand_size),
        (_one_hot(slot, plays | discards), rules.hand_size),
        (card, rules.num_kinds),
        (scored.astype(jnp.uint32), 1),
        (gained.astype(jnp.uint32), 1),
    ]


def _knowledge(rules: Rules, state: HanabiState) -> list[Field]:
    """Of every card what it may be and what was told of it."""
    possible = _from_each(state.possible).reshape(rules.num_agents, -1)
    hinted = _from_each(state.hinted).reshape(rules.num_agents, -1)
    fields = []
    for card in range(rules.num_dealt):
        fields.append((possible[:, card], rules.num_kinds))
        fields.append((hinted[:, card], rules.num_colors + rules.num_ranks))
    return fields


def _beliefs(rules: Rules, state: HanabiState) -> Float[Array, "A features"]:
    """Of every card how probable each kind is and what was told of it.

    A kind is as probable, among the possible ones, as many of its copies are neither discarded nor
    played.
    """
    possible = _from_each(state.possible).reshape(rules.num_agents, -1)
    hinted = _from_each(state.hinted).reshape(rules.num_agents, -1)
    seen = cards.put(state.discards, state.fireworks)
    unseen = [full & ~layer for full, layer in zip(rules.full_deck, seen, strict=True)]
    candidates = sum(cards.count(possible & layer) for layer in unseen)
    share = 1.0 / jnp.maximum(candidates, 1).astype(jnp.float32)
    layers = [_bits(layer, rules.num_kinds) for layer in unseen]
    copies = _floats(sum(layers[1:], layers[0]))
    probability = _floats(_bits(possible, rules.num_kinds)) * copies * share[..., None]
    told = _floats(_bits(hinted, rules.num_colors + rules.num_ranks))
    return jnp.concatenate([probability, told], axis=-1).reshape(rules.num_agents, -1)


def _from_each(table: Array) -> Array:
    """`[A, ...]` of the agents as `[A, P, ...]`: from each agent's seat, itself first."""
    num_agents = table.shape[0]
    twice = jnp.concatenate([table, table])
    return jnp.stack([twice[agent : agent + num_agents] for agent in range(num_agents)])


def _union(hands: UInt32[Array, "A H"]) -> UInt32[Array, " A"]:
    """The kinds in each hand."""
    kinds = hands[:, 0]
    for slot in range(1, hands.shape[1]):
        kinds = kinds | hands[:, slot]
    return kinds


def _colors_of(rules: Rules, kinds: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The colours among kinds, a bit each."""
    bits = jnp.zeros_like(kinds)
    for color in range(rules.num_colors):
        has = (kinds & (rules.first_color << np.uint32(color * rules.num_ranks))) != 0
        bits = bits | has.astype(jnp.uint32) << np.uint32(color)
    return bits


def _ranks_of(rules: Rules, kinds: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The ranks among kinds, a bit each."""
    bits = kinds
    for color in range(1, rules.num_colors):
        bits = bits | kinds >> np.uint32(color * rules.num_ranks)
    return bits & rules.first_color


def _each(words: UInt32[Array, "A columns"], width: int) -> list[Field]:
    return [(words[:, column], width) for column in range(words.shape[1])]


def _thermometer(level: Int[Array, ""], width: int) -> list[Field]:
    """As many ones as `level` says, in fields of up to 31 bits."""
    fields = []
    for start in range(0, width, _WORD - 1):
        part = min(width - start, _WORD - 1)
        ones = jnp.clip(level - start, 0, part).astype(jnp.uint32)
        fields.append(((np.uint32(1) << ones) - 1, part))
    return fields


def _one_hot(index: Int[Array, "..."], shown: Bool[Array, ""]) -> UInt32[Array, "..."]:
    return jnp.where(shown, np.uint32(1) << (index.astype(jnp.uint32) & 31), 0)


def _bit_per_slot(flags: Bool[Array, "A slots"]) -> UInt32[Array, " A"]:
    slots = np.arange(flags.shape[1], dtype=np.uint32)
    return jnp.where(flags, np.uint32(1) << slots, 0).sum(axis=1, dtype=jnp.uint32)


def _unpacked(rules: Rules, fields: Iterable[Field]) -> UInt32[Array, "A bits"]:
    """The bits of fields, one after the other."""
    words: list[Array] = []
    used = 0
    for value, width in fields:
        word, shift = divmod(used, _WORD)
        used += width
        for index, part in (
            (word, value << np.uint32(shift)),
            (word + 1, value >> np.uint32(-shift % _WORD)),
        ):
            if index * _WORD >= used:
                continue
            if index == len(words):
                words.append(part)
            else:
                words[index] = words[index] | part
    table = jnp.stack([jnp.broadcast_to(word, (rules.num_agents,)) for word in words], axis=1)
    return _bits(table, _WORD).reshape(rules.num_agents, -1)[:, :used]


def _bits(words: UInt32[Array, "..."], width: int) -> UInt32[Array, "... width"]:
    return (words[..., None] >> jnp.arange(width, dtype=jnp.uint32)) & 1


def _floats(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    # By way of int32, which processors convert faster than uint32.
    return bits.astype(jnp.int32).astype(jnp.float32)
