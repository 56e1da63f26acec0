"""Hanabi in words. States are of one environment and on the host."""

from kiloworlds.envs.multiagent.hanabi.game import HanabiState, Rules, hint_of, is_over, is_won

COLORS = ("red", "yellow", "green", "white", "blue", "multicolor")
LETTERS = tuple(color[0].upper() for color in COLORS)


def action_names(rules: Rules) -> tuple[str, ...]:
    """What each action means; "+1" is the agent that moves next."""
    slots, others = range(rules.hand_size), range(1, rules.num_agents)
    return (
        *(f"discard {slot}" for slot in slots),
        *(f"play {slot}" for slot in slots),
        *(f"tell +{other} {color}" for other in others for color in COLORS[: rules.num_colors]),
        *(f"tell +{other} rank {rank + 1}" for other in others for rank in range(rules.num_ranks)),
        "nothing",
    )


def card_names(rules: Rules, kinds: int) -> list[str]:
    """The kinds of a set, such as "R1"."""
    return [
        f"{LETTERS[color]}{rank + 1}"
        for color in range(rules.num_colors)
        for rank in range(rules.num_ranks)
        if int(kinds) >> rules.kind(color, rank) & 1
    ]


def colors_and_ranks(rules: Rules, kinds: int) -> tuple[list[int], list[int]]:
    """The colours and the ranks among the kinds of a set, counted from 0."""
    colors, ranks = set(), set()
    for color in range(rules.num_colors):
        for rank in range(rules.num_ranks):
            if int(kinds) >> rules.kind(color, rank) & 1:
                colors.add(color)
                ranks.add(rank)
    return sorted(colors), sorted(ranks)


def describe_game(rules: Rules, state: HanabiState, score: int) -> str:
    """The position, all hands, and for each card what its owner knows of it."""
    deck = sum(int(layer).bit_count() for layer in state.deck)
    fireworks = " ".join(
        f"{LETTERS[color]}{firework_height(rules, state, color)}"
        for color in range(rules.num_colors)
    )
    lines = [
        f"{_status(rules, state)}. Score {score} of {rules.num_kinds}, "
        f"information {int(state.information)} of {rules.max_info_tokens}, "
        f"lives {int(state.lives)} of {rules.max_life_tokens}, deck {deck}.",
        f"Fireworks: {fireworks}",
        f"Discarded: {' '.join(_discarded(rules, state)) or 'nothing'}",
        f"Last move: {describe_last_move(rules, state)}",
        "Cards, from the oldest to the newest, and what their owner, who does not see them, knows:",
    ]
    for agent in range(rules.num_agents):
        lines.append(f"agent_{agent}")
        for slot in range(rules.hand_size):
            lines.append(f"  {slot} {_card(rules, state, agent, slot)}")
    return "\n".join(lines)


def describe_last_move(rules: Rules, state: HanabiState) -> str:
    """Who did what in the move before, and what came of it."""
    action, last = int(state.last.action), state.last
    if action < 0:
        return "none"
    agent = (int(state.turn) - 1) % rules.num_agents
    if action >= rules.no_op:
        return f"agent_{agent} passed"
    told = hinted_cards(rules, state)
    if told:
        hint = hint_of(rules, last.action)
        what = COLORS[int(hint.value)] if hint.of_color else f"rank {int(hint.value) + 1}"
        slots = ", ".join(str(slot) for _, slot in told)
        return f"agent_{agent} told agent_{told[0][0]} {what}: {slots}"
    (card,) = card_names(rules, int(last.card))
    if action < rules.hand_size:
        return f"agent_{agent} discarded {card} from {action}"
    result = "the firework grows" if last.scored else "it does not fit and a life is lost"
    result += ", a token comes back" if last.gained else ""
    return f"agent_{agent} played {card} from {action - rules.hand_size}: {result}"


def hinted_cards(rules: Rules, state: HanabiState) -> list[tuple[int, int]]:
    """Agent and slot of each card that the move before was a hint about."""
    mover = int(state.turn) - 1
    target = (mover + int(hint_of(rules, state.last.action).offset)) % rules.num_agents
    touched = int(state.last.touched)
    return [(target, slot) for slot in range(rules.hand_size) if touched >> slot & 1]


def firework_height(rules: Rules, state: HanabiState, color: int) -> int:
    """How many cards a firework holds."""
    kinds = int(rules.first_color) << color * rules.num_ranks
    return (int(state.fireworks) & kinds).bit_count()


def num_discarded(state: HanabiState, kind: int) -> int:
    """How many cards of a kind are discarded."""
    return sum(int(layer) >> kind & 1 for layer in state.discards)


def _status(rules: Rules, state: HanabiState) -> str:
    if is_won(rules, state):
        return "All fireworks are complete"
    if state.lives <= 0:
        return "All lives are lost"
    if is_over(rules, state):
        return "All turns are taken"
    return f"agent_{int(state.turn)} to move"


def _discarded(rules: Rules, state: HanabiState) -> list[str]:
    return [
        name
        for name in card_names(rules, int(rules.all_kinds))
        for _ in range(num_discarded(state, _kind_of(rules, name)))
    ]


def _kind_of(rules: Rules, name: str) -> int:
    return rules.kind(LETTERS.index(name[0]), int(name[1]) - 1)


def _card(rules: Rules, state: HanabiState, agent: int, slot: int) -> str:
    names = card_names(rules, int(state.hands[agent, slot]))
    if not names:
        return "--"
    colors, ranks = colors_and_ranks(rules, int(state.possible[agent, slot]))
    letters = "".join(LETTERS[color] for color in colors)
    numbers = "".join(str(rank + 1) for rank in ranks)
    hinted = int(state.hinted[agent, slot])
    told = [COLORS[color] for color in range(rules.num_colors) if hinted >> color & 1]
    told += [
        f"rank {rank + 1}"
        for rank in range(rules.num_ranks)
        if hinted >> rules.num_colors + rank & 1
    ]
    known = f"may be {letters} {numbers}"
    return f"{names[0]}  {known}" + (f", told {' and '.join(told)}" if told else "")
