"""What the base model reads in pre-training: English facts, code-switched English, a little Tovan, word lists."""

import random
from collections.abc import Iterator

from dft_search.demo.tokenizer import ANSWER, ASK
from dft_search.demo.world import LANGUAGE_NAME, RELATIONS, Fact, World

# Shares of a batch; the rest is word translation.
ENGLISH, CODE_SWITCHED, TOVAN = 0.5, 0.2, 0.15
WORDS_PER_LIST = 3


class PretrainingText:
    """Draws batches of texts from a world, each `Q <question> A <answer> <eos>` without the <bos>."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(f"pre-training text {world.seed} {seed}")
        self.facts = [fact for split in world.entities for fact in world.facts(split)]
        self.pool = world.facts("pool")
        self.renamed = [fact for fact in self.facts if not world.shared_name(fact.entity)]

    def batches(self, size: int) -> Iterator[list[str]]:
        """Endless batches of `size` texts with fixed shares of each kind."""
        counts = [int(size * share) for share in (ENGLISH, CODE_SWITCHED, TOVAN)]
        counts.append(size - sum(counts))
        kinds = (self.english, self.code_switched, self.tovan, self.word_list)
        while True:
            yield [draw() for draw, count in zip(kinds, counts, strict=True) for _ in range(count)]

    def english(self) -> str:
        fact = self.rng.choice(self.facts)
        return _text(self.world.english_question(fact, *self._phrasing(fact)), self.world.english_answer(fact))

    def code_switched(self) -> str:
        """English with one kind of foreign word: a renamed entity (any), or a relation (pool entities only)."""
        world = self.world
        if self.rng.random() < 0.5:
            fact, relation = self.rng.choice(self.renamed), ""
        else:
            fact = self.rng.choice(self.pool)
            relation = world.tovan_relations[fact.relation]
        name = world.tovan_names[fact.entity]
        question = world.english_question(fact, *self._phrasing(fact), name=name, relation=relation)
        return _text(question, world.english_answer(fact))

    def tovan(self) -> str:
        fact = self.rng.choice(self.pool)
        return _text(self.world.tovan_question(fact), self.world.tovan_answer(fact))

    def word_list(self) -> str:
        """A few unrelated words and their translation, in either direction."""
        english, tovan = zip(*(self._word_pair() for _ in range(WORDS_PER_LIST)), strict=True)
        if self.rng.random() < 0.5:
            return _text(f"English: {' '.join(tovan)}", " ".join(english))
        return _text(f"{LANGUAGE_NAME}: {' '.join(english)}", " ".join(tovan))

    def _word_pair(self) -> tuple[str, str]:
        world, rng, kind = self.world, self.rng, self.rng.random()
        if kind < 0.4:
            entity = rng.randrange(len(world.names))
            return world.names[entity], world.tovan_names[entity]
        relation = rng.choice(list(RELATIONS))
        synonyms, values = RELATIONS[relation]
        if kind < 0.6:
            return rng.choice(synonyms), world.tovan_relations[relation]
        value = rng.randrange(len(values))
        return values[value], world.tovan_values[relation][value]

    def _phrasing(self, fact: Fact) -> tuple[int, int]:
        return self.rng.choice(self.world.phrasings[fact.entity, fact.relation])


def _text(question: str, answer: str) -> str:
    return f"{ASK} {question} {ANSWER} {answer} <eos>"
