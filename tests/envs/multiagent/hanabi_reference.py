"""Hanabi in plain Python, written from the rules and from the layout of the observations."""


class PlainGame:
    """One game with a known deck of (colour, rank) pairs, both counted from 0."""

    def __init__(self, rules, deck):
        self.rules, self.deck = rules, list(deck)
        agents, size = range(rules.num_agents), rules.hand_size
        self.hands = [[self._new_card() for _ in range(size)] for _ in agents]
        self.fireworks = [0] * rules.num_colors
        self.discards = []
        self.information, self.lives = rules.max_info_tokens, rules.max_life_tokens
        self.turn, self.turns_left, self.last = 0, rules.num_agents, None

    def _new_card(self):
        """A card with the colours and ranks it may have, and those told."""
        colors, ranks = set(range(self.rules.num_colors)), set(range(self.rules.num_ranks))
        return {"card": self.deck.pop(0), "colors": colors, "ranks": ranks, "told": set()}

    @property
    def points(self):
        return sum(self.fireworks)

    @property
    def over(self):
        complete = self.points == self.rules.num_colors * self.rules.num_ranks
        return self.lives == 0 or complete or self.turns_left == 0

    def moves(self):
        """The legal moves by number: (what, ...)."""
        rules, legal, number = self.rules, {}, 0
        hand = self.hands[self.turn]
        for what in ("discard", "play"):
            for slot in range(rules.hand_size):
                full = what == "discard" and self.information == rules.max_info_tokens
                if slot < len(hand) and not full:
                    legal[number] = (what, slot)
                number += 1
        for what, values in (("color", rules.num_colors), ("rank", rules.num_ranks)):
            for offset in range(1, rules.num_agents):
                other = (self.turn + offset) % rules.num_agents
                for value in range(values):
                    if self.information and self._touched(other, what, value):
                        legal[number] = (what, other, value)
                    number += 1
        return legal

    def _touched(self, agent, what, value):
        part = 0 if what == "color" else 1
        return [i for i, card in enumerate(self.hands[agent]) if card["card"][part] == value]

    def play(self, number):
        """Makes a legal move; returns the cards drawn."""
        what, *details = self.moves()[number]
        agent, drawn = self.turn, []
        self.turns_left -= not self.deck
        self.last = {"agent": agent, "what": what, "details": details}
        if what in ("discard", "play"):
            color, rank = self.hands[agent].pop(details[0])["card"]
            fits = what == "play" and self.fireworks[color] == rank
            gained = fits and rank == self.rules.num_ranks - 1
            gained = gained and self.information < self.rules.max_info_tokens
            self.last |= {"card": (color, rank), "scored": fits, "gained": gained}
            self.fireworks[color] += fits
            self.lives -= what == "play" and not fits
            self.information += gained or what == "discard"
            if not fits:
                self.discards.append((color, rank))
            if self.deck:
                drawn = [self.deck[0]]
                self.hands[agent].append(self._new_card())
        else:
            other, value = details
            touched = self._touched(other, what, value)
            self.information -= 1
            self.last |= {"touched": touched}
            for i, card in enumerate(self.hands[other]):
                left = card["colors" if what == "color" else "ranks"]
                if i in touched:
                    left.intersection_update({value})
                    card["told"].add((what, value))
                else:
                    left.discard(value)
        self.turn = (self.turn + 1) % self.rules.num_agents
        return drawn

    def observation(self, viewer, beliefs):
        """What an agent observes, a list of numbers."""
        rules, seen = self.rules, []
        seats = [(viewer + k) % rules.num_agents for k in range(rules.num_agents)]
        for agent in seats[1:]:
            for slot in range(rules.hand_size):
                hand = self.hands[agent]
                seen += self._kinds([hand[slot]["card"]] if slot < len(hand) else [])
        seen += [len(self.hands[agent]) < rules.hand_size for agent in seats]
        to_draw = rules.deck_size - rules.num_agents * rules.hand_size
        seen += [i < len(self.deck) for i in range(to_draw)]
        seen += self._kinds([(c, n - 1) for c, n in enumerate(self.fireworks)])
        seen += [i < self.information for i in range(rules.max_info_tokens)]
        seen += [i < self.lives for i in range(rules.max_life_tokens)]
        for color in range(rules.num_colors):
            for rank, copies in enumerate(rules.copies):
                seen += [i < self.discards.count((color, rank)) for i in range(copies)]
        seen += self._last_move(seats)
        weights = self._unseen() if beliefs else [1] * (rules.num_colors * rules.num_ranks)
        for agent in seats:
            for slot in range(rules.hand_size):
                hand = self.hands[agent]
                seen += self._knowledge(hand[slot] if slot < len(hand) else None, weights, beliefs)
        return [float(number) for number in seen]

    def _kinds(self, cards):
        colors, ranks = range(self.rules.num_colors), range(self.rules.num_ranks)
        return [(color, rank) in cards for color in colors for rank in ranks]

    def _last_move(self, seats):
        rules, last = self.rules, self.last or {"agent": None, "what": None, "details": []}
        what, details = last["what"], last["details"]
        is_hint = what in ("color", "rank")
        moved = [] if is_hint else details
        told = details[1] if is_hint else None
        seen = [last["agent"] == agent for agent in seats]
        seen += [what == name for name in ("play", "discard", "color", "rank")]
        seen += [is_hint and details[0] == agent for agent in seats]
        seen += [what == "color" and told == value for value in range(rules.num_colors)]
        seen += [what == "rank" and told == value for value in range(rules.num_ranks)]
        seen += [slot in last.get("touched", []) for slot in range(rules.hand_size)]
        seen += [slot in moved for slot in range(rules.hand_size)]
        seen += self._kinds([last["card"]] if "card" in last else [])
        return [*seen, last.get("scored", False), last.get("gained", False)]

    def _unseen(self):
        """How many cards of each kind are neither discarded nor played."""
        return [
            copies - self.discards.count((color, rank)) - (self.fireworks[color] > rank)
            for color in range(self.rules.num_colors)
            for rank, copies in enumerate(self.rules.copies)
        ]

    def _knowledge(self, card, weights, beliefs):
        colors, ranks = range(self.rules.num_colors), range(self.rules.num_ranks)
        if card is None:
            return [0.0] * (len(weights) + len(colors) + len(ranks))
        kinds = [(color, rank) for color in colors for rank in ranks]
        weights = [
            weight if color in card["colors"] and rank in card["ranks"] else 0
            for weight, (color, rank) in zip(weights, kinds, strict=True)
        ]
        total = sum(weights) if beliefs else 1
        told = [("color", color) in card["told"] for color in colors]
        told += [("rank", rank) in card["told"] for rank in ranks]
        return [*(weight / total for weight in weights), *told]
