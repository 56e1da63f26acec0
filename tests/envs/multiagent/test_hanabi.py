"""Hanabi: its rules worked by hand, random games against a plain game, and what is drawn."""

import jax
import numpy as np
import pytest
from hanabi_reference import PlainGame
from hanabi_tables import Table, bit_of, shuffled_deck, start_with

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.hanabi.environment import Hanabi

SMALL = {"num_colors": 2, "hand_size": 2, "max_info_tokens": 3, "max_life_tokens": 1}
VERY_SMALL = SMALL | {"num_colors": 1}


def test_hint_tells_what_cards_are_and_what_the_others_are_not():
    table = Table("R1 R1 R2 Y1 Y2  R3 Y3 R4 B5 R3")
    step = table.do("tell +1 red")
    assert table.lines(1) == [
        "0 R3  may be R 12345, told red",
        "1 Y3  may be YGWB 12345",
        "2 R4  may be R 12345, told red",
        "3 B5  may be YGWB 12345",
        "4 R3  may be R 12345, told red",
    ]
    assert table.state.information == 7
    assert step.reward.tolist() == [0.0, 0.0]
    assert not step.terminated
    table.do("tell +1 rank 1", "tell +1 rank 3")
    assert table.lines(1)[:3] == [
        "0 R3  may be R 3, told red and rank 3",
        "1 Y3  may be YGWB 3, told rank 3",
        "2 R4  may be R 1245, told red",
    ]
    assert table.lines(0)[2] == "2 R2  may be RYGWB 2345"
    assert table.state.information == 5
    assert "agent_0 told agent_1 rank 3: 0, 1, 4" in table.env.describe(table.state)


def test_only_hints_that_touch_a_card_are_legal_and_only_with_tokens():
    table = Table("R1 R2 Y1 Y2 R3 Y3", num_agents=3, **SMALL)
    discards = ["discard 0", "discard 1"]
    plays = ["play 0", "play 1"]
    hints = ["tell +1 yellow", "tell +2 red", "tell +2 yellow"]
    hints += ["tell +1 rank 1", "tell +1 rank 2", "tell +2 rank 3"]
    assert table.legal() == plays + hints  # all tokens are there: no discards
    waiting = table.masks()[1:]
    assert waiting.sum() == 2
    assert waiting[:, table.rules.no_op].all()
    table.do("tell +1 rank 1")
    # Now the next agent sees the third's and the first's cards.
    assert "tell +1 rank 3" in table.legal()
    assert "tell +2 yellow" not in table.legal()
    table.do("tell +1 rank 3", "tell +1 red")
    assert table.state.information == 0
    assert table.legal() == discards + plays


def test_cards_played_and_discarded_leave_and_the_hand_closes_up():
    table = Table("R1 Y4 G1 R2 B1  W1 W2 W3 W4 W5  G5 B4")
    table.do("tell +1 rank 1", "tell +1 green")
    step = table.do("play 0")
    assert step.reward.tolist() == [1.0, 1.0]
    assert step.info["score"] == 1
    assert table.lines(0) == [
        "0 Y4  may be RYWB 12345",
        "1 G1  may be G 12345, told green",
        "2 R2  may be RYWB 12345",
        "3 B1  may be RYWB 12345",
        "4 G5  may be RYGWB 12345",
    ]
    table.do("discard 4")
    assert table.state.information == 7
    assert table.lines(1)[4] == "4 B4  may be RYGWB 12345"
    assert "Fireworks: R1 Y0 G0 W0 B0\nDiscarded: W5" in table.env.describe(table.state)


def test_complete_firework_brings_a_token_back_unless_all_are_there():
    settings = {"num_colors": 2, "num_ranks": 2, "hand_size": 2}  # R1 R1 R1 R2, and of Y
    table = Table("R1 R2 Y1 R1  Y2 Y1", **settings)
    table.do("play 0", "play 0")  # R1 and Y1 fit
    table.do("tell +1 rank 1")
    assert table.state.information == 7
    table.do("discard 0")
    assert table.state.information == 8
    step = table.do("play 0")  # R2
    assert step.reward[0] == 1.0
    assert table.state.information == 8
    assert not table.state.last.gained
    other = Table("R1 R2 Y1 R1  Y2 Y1", **settings)
    other.do("play 0", "tell +1 yellow")
    assert other.state.information == 7
    other.do("play 0")
    assert other.state.information == 8
    assert other.state.last.gained
    assert "a token comes back" in other.env.describe(other.state)


def test_last_round_gives_every_agent_one_more_move():
    # 3 + 1 cards of each of 2 colours: 8, of which 6 are dealt to 3 agents.
    table = Table("R1 R1 Y1 Y1 R1 Y1  R2 Y2", num_agents=3, num_colors=2, num_ranks=2, hand_size=2)
    table.do("play 0", "tell +1 rank 1")
    step = table.do("play 1")  # Y1 fits, and its agent draws the last card, Y2
    assert not any(int(layer) for layer in table.state.deck)
    assert not step.terminated
    step = table.do("play 1")  # R2 fits; no card follows
    assert step.reward[0] == 1.0
    assert table.lines(0) == ["0 R1  may be RY 12", "1 --"]
    assert table.state.turns_left == 2
    step = table.do("tell +1 red")
    assert not step.terminated
    step = table.do("play 0")  # R1 does not fit
    assert step.terminated
    assert step.info["score"] == 3
    assert not step.info["won"]
    assert table.env.describe(table.state).startswith("All turns are taken. Score 3 of 4")


@pytest.mark.parametrize("keeps_score", [False, True])
def test_losing_all_lives_ends_the_game(keeps_score):
    table = Table("R1 R3 R2 Y2 B1", max_life_tokens=2, keeps_score=keeps_score)
    table.do("play 0", "tell +1 rank 1")
    step = table.do("play 0")  # R3 does not fit on R1
    assert step.reward[0] == 0.0
    assert not step.terminated
    assert table.state.lives == 1
    table.do("tell +1 rank 2")
    step = table.do("play 1")  # Y2
    assert step.terminated
    assert not step.info["won"]
    assert step.info["score"] == (1 if keeps_score else 0)
    assert step.reward.tolist() == ([0.0, 0.0] if keeps_score else [-1.0, -1.0])
    assert (step.reward + step.info["shaped_reward"] == 0.0).all()
    assert table.env.describe(table.state).startswith("All lives are lost")


def test_all_fireworks_complete_wins_before_the_deck_is_empty():
    table = Table("R1 R3  R2 R4  R5", **VERY_SMALL)
    step = table.do("play 0", "play 0", "play 0", "play 0")
    assert not step.info["won"]
    step = table.do("play 0")  # the R5 that was drawn first
    assert step.info["won"]
    assert step.terminated
    assert step.info["score"] == 5
    assert any(int(layer) for layer in table.state.deck)


def test_illegal_moves_pass_the_turn():
    table = Table("R1 R2 Y1 Y2", **SMALL)
    before = jax.device_get(table.state)
    for move in ("discard 0", "nothing", "tell +1 red", "nothing"):  # all tokens there, no red card
        step = table.do(move)
        assert step.reward[0] == 0.0
        assert "passed" in table.env.describe(table.state)
    after = jax.device_get(table.state)
    same = jax.tree.map(np.array_equal, before._replace(last=0), after._replace(last=0))
    assert all(jax.tree.leaves(same))


CASES = {
    "two": {},
    "five": {"num_agents": 5},
    "small": SMALL,
    "other": {
        "num_agents": 4,
        "num_colors": 6,
        "num_ranks": 4,
        "hand_size": 3,
        "max_info_tokens": 5,
        "max_life_tokens": 2,
        "num_cards_of_rank": (2, 4, 1, 3),
    },
}


@pytest.mark.parametrize(
    "case", ["two", "other", *(pytest.param(c, marks=pytest.mark.slow) for c in ("five", "small"))]
)
def test_games_equal_plain_games(case):
    """Moves, rewards, ends and observations, in games that mostly play what fits."""
    both = [Hanabi(**CASES[case], beliefs=beliefs) for beliefs in (True, False)]
    env, rules = both[0], both[0].rules
    rng = np.random.default_rng(7)
    num_games = 5
    decks = [shuffled_deck(rules, rng) for _ in range(num_games)]
    games = [PlainGame(rules, deck) for deck in decks]
    kinds = np.array([[bit_of(rules, card) for card in deck] for deck in decks])
    states = jax.jit(jax.vmap(lambda deck: start_with(rules, deck)))(kinds)
    look = jax.jit(
        jax.vmap(lambda s: (env.available_actions(s), *(each.observe(s) for each in both)))
    )
    step = jax.jit(jax.vmap(env.step_with))
    ends = set()
    while not all(game.over for game in games):
        legal, *seen = map(np.asarray, look(states))
        actions = np.full((num_games, rules.num_agents), rules.no_op, np.int32)
        drawn = np.zeros(num_games, np.uint32)
        before = [game.points * (game.lives > 0) for game in games]
        running = [i for i, game in enumerate(games) if not game.over]
        for i in running:
            game = games[i]
            moves = game.moves()
            expected = np.zeros_like(legal[i])
            expected[:, rules.no_op] = True
            expected[game.turn] = False
            expected[game.turn, list(moves)] = True
            np.testing.assert_array_equal(legal[i], expected)
            for agent in range(rules.num_agents):
                for observed, beliefs in zip(seen, (True, False), strict=True):
                    np.testing.assert_allclose(
                        observed[i, agent], game.observation(agent, beliefs), rtol=1e-6, atol=1e-7
                    )
            move = _choose(game, moves, rng)
            actions[i, game.turn] = move
            for card in game.play(move):
                drawn[i] = bit_of(rules, card)
        states, result = step(states, actions, drawn)
        for i in running:
            game = games[i]
            score = game.points * (game.lives > 0)
            assert np.all(np.asarray(result.reward[i]) == score - before[i])
            assert bool(result.terminated[i]) == game.over
            assert int(result.info["score"][i]) == score
            if game.over:
                ends.add("lives" if game.lives == 0 else "turns")
    assert "turns" in ends or case == "small"


def _choose(game, moves, rng):
    """A card that fits if there is one, mostly; else anything, but seldom a card that does not fit."""
    hand = game.hands[game.turn]
    fits = [
        number
        for number, (what, *details) in moves.items()
        if what == "play" and _fits(game, hand[details[0]]["card"])
    ]
    if fits and rng.random() < 0.9:
        return int(rng.choice(fits))
    others = [number for number, (what, *_) in moves.items() if what != "play"]
    return int(rng.choice(others if others and rng.random() < 0.95 else list(moves)))


def _fits(game, card):
    return game.fireworks[card[0]] == card[1]


def test_every_card_is_somewhere():
    """In random games: deck, hands, fireworks and discards together are the whole deck."""
    env = Hanabi(num_agents=3, num_colors=3, max_life_tokens=6)
    rules = env.rules

    def advance(state, key):
        masks = env.available_actions(state)
        words = jax.random.uniform(key, masks.shape)
        actions = jax.numpy.argmax(jax.numpy.where(masks, words, -1.0), axis=-1)
        state, _ = env.step(jax.random.fold_in(key, 1), state, actions)
        return state, state

    def play(key):
        state, _ = env.reset(key)
        return jax.lax.scan(advance, state, jax.random.split(jax.random.fold_in(key, 9), 60))[1]

    states = jax.device_get(jax.jit(jax.vmap(play))(jax.random.split(fast_key(5), 20)))
    num_cards = np.zeros((20, 60, rules.num_kinds), int)
    hands = [states.hands[..., agent, slot] for agent, slot in np.ndindex(3, rules.hand_size)]
    for words in (*states.deck, *hands, states.fireworks, *states.discards):
        num_cards += words[..., None] >> np.arange(rules.num_kinds, dtype=np.uint32) & 1
    assert (num_cards == np.tile(rules.copies, 3)).all()
    assert (states.information <= rules.max_info_tokens).all()
    assert (states.information >= 0).all()
    assert len(np.unique(states.information)) == rules.max_info_tokens + 1


def test_every_card_is_dealt_and_drawn_as_often():
    env = Hanabi(num_agents=2, hand_size=3)
    rules = env.rules
    keys = jax.random.split(fast_key(1), 40_000)

    def deal(key):
        state, _ = env.reset(key)
        state, _ = env.step(jax.random.fold_in(key, 1), state, np.array([3, 30], np.int32))
        return state.hands[0]

    hands = np.asarray(jax.jit(jax.vmap(deal))(keys))  # two cards dealt, and one drawn
    expected = len(keys) * np.tile(rules.copies, 5) / rules.deck_size
    for slot in range(3):
        counts = [(hands[:, slot] == 1 << kind).sum() for kind in range(rules.num_kinds)]
        # Of a multinomial distribution; 5 standard deviations.
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()
    # The only R5 is never dealt twice.
    assert ((hands == 1 << 4).sum(axis=1) <= 1).all()


def test_observation_sizes_and_global_state():
    sizes = {2: 658, 3: 956, 4: 1041, 5: 1280}
    for num_agents, size in sizes.items():
        env = kiloworlds.make_environment(f"hanabi/full-{num_agents}p")
        assert env.observation_space.shape == (num_agents, size)
    env = Hanabi(**SMALL)
    state, seen = jax.jit(env.reset)(fast_key(4))
    view = np.asarray(jax.jit(env.global_state)(state))
    size = seen.shape[1]
    np.testing.assert_array_equal(view[:, :size], seen)
    # Each agent's own hand is what the other one sees first.
    np.testing.assert_array_equal(view[:, size:], np.asarray(seen)[::-1, : 2 * 10])


def test_registered_sizes():
    small = kiloworlds.make_environment("hanabi/small-2p").rules
    very_small = kiloworlds.make_environment("hanabi/very_small-2p").rules
    assert (small.deck_size, small.hand_size, small.no_op) == (20, 2, 11)
    assert (very_small.deck_size, very_small.num_colors) == (10, 1)
    assert kiloworlds.make_environment("hanabi/full-4p").rules.hand_size == 4


def test_render_shows_the_position():
    table = Table("R1 R2 Y1 Y2", **SMALL)
    first = table.env.render(table.state)
    table.do("tell +1 yellow")
    assert first.shape == table.env.render(table.state).shape
    assert (first != table.env.render(table.state)).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_agents": 6}, "num_agents=6 must be a whole number between 2 and 5; .* is 5"),
        ({"num_colors": 7}, "num_colors=7 .* nearest valid value is 6"),
        ({"num_ranks": 0}, "num_ranks=0 .* nearest valid value is 1"),
        ({"max_life_tokens": 0}, "max_life_tokens=0 .* nearest valid value is 1"),
        ({"hand_size": 25}, "hand_size=25 leaves nothing to draw: .* nearest valid value is 24"),
        ({"num_cards_of_rank": (1, 2)}, "must be 5 numbers, one for each rank"),
        ({"num_cards_of_rank": (1, 1, 1, 1, 9)}, "num_cards_of_rank=9 .* nearest .* is 8"),
        ({"beliefs": 1}, "beliefs=1 must be True or False"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        Hanabi(**settings)
