"""The built-in bilingual world: who exists, what is true of whom, and how two languages say it.

A world is made from its seed alone. English is fixed (real words); names, facts and the second language, Tovan,
are drawn. Every fact is a triple (entity, relation, value). Entities are split into four groups that never mix:

* pool  - facts that the base model reads in both languages while it is pre-trained,
* train - facts whose questions become the parallel rows of `train.jsonl`,
* dev, test - facts that are asked in Tovan but never told in it.

The base model reads every fact in English, each in half of the 16 possible phrasings: without paraphrases facts do not
carry over to a second language at all. The sizes are set so that the base model knows little in Tovan, and plain
fine-tuning on the rows brings it to about the middle of the scale.
"""

import random
from dataclasses import dataclass
from functools import partial
from typing import Literal

Split = Literal["pool", "train", "dev", "test"]

LANGUAGE_CODE = "qaa"  # ISO 639 reserves qaa..qtz for local use
LANGUAGE_NAME = "Tovan"

SPLIT_SIZES: dict[Split, int] = {"pool": 5, "train": 30, "dev": 60, "test": 80}
SHARED_NAMES = 0.6  # share of entities with the same name in both languages
PHRASINGS_SEEN = 8  # of len(FRAMES) * 4 per fact

_ENGLISH = {  # relation: four words for it, its values
    "color": ("color hue tint shade", "red blue green black white gold silver brown pink gray purple orange"),
    "home": (
        "home dwelling residence abode",
        "harbor island valley forest desert hill river city castle cave tower farm",
    ),
    "food": ("food meal dish fare", "rice bread soup fish cheese beans apples honey noodles eggs salad cake"),
    "trade": (
        "trade job craft occupation",
        "baker smith weaver sailor grocer doctor teacher singer cook hunter tailor judge",
    ),
    "pet": ("pet animal beast companion", "cat dog horse owl goat fox bear wolf crow hare swan mouse"),
}
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    relation: (tuple(synonyms.split()), tuple(values.split())) for relation, (synonyms, values) in _ENGLISH.items()
}
FRAMES = (
    "what is the {relation} of {name}?",
    "{name} has which {relation}?",
    "tell me the {relation} for {name} please",
    "about {name}: {relation}?",
)
TOVAN_FRAME = "su {name} ke {relation} velo?"
_TOVAN_FUNCTION_WORDS = ("su", "ke", "velo")


@dataclass(frozen=True, slots=True)
class Fact:
    """One true triple; `entity` and `value` are indices, `relation` a key of RELATIONS."""

    entity: int
    relation: str
    value: int


@dataclass(frozen=True)
class World:
    """Everything that is fixed by a world seed. Lists are indexed by entity or value."""

    seed: int
    names: tuple[str, ...]
    tovan_names: tuple[str, ...]  # equal to `names` where the name is shared
    tovan_relations: dict[str, str]
    tovan_values: dict[str, tuple[str, ...]]
    entities: dict[Split, tuple[int, ...]]
    values: dict[tuple[int, str], int]
    phrasings: dict[tuple[int, str], tuple[tuple[int, int], ...]]  # (frame, synonym) pairs that English uses

    def facts(self, split: Split) -> list[Fact]:
        """All facts about the entities of one split, in a fixed order."""
        return [Fact(e, r, self.values[e, r]) for e in self.entities[split] for r in RELATIONS]

    def shared_name(self, entity: int) -> bool:
        return self.names[entity] == self.tovan_names[entity]

    def english_question(self, fact: Fact, frame: int = 0, synonym: int = 0, name: str = "", relation: str = "") -> str:
        """The question in English; `name` and `relation` replace a word by another (code-switching)."""
        return FRAMES[frame].format(
            name=name or self.names[fact.entity], relation=relation or RELATIONS[fact.relation][0][synonym]
        )

    def tovan_question(self, fact: Fact) -> str:
        return TOVAN_FRAME.format(name=self.tovan_names[fact.entity], relation=self.tovan_relations[fact.relation])

    def english_answer(self, fact: Fact) -> str:
        return RELATIONS[fact.relation][1][fact.value]

    def tovan_answer(self, fact: Fact) -> str:
        return self.tovan_values[fact.relation][fact.value]

    def words(self) -> list[str]:
        """Every word and sign that can occur in a text of this world, sorted."""
        texts = [*FRAMES, TOVAN_FRAME, *self.names, *self.tovan_names, *self.tovan_relations.values()]
        texts += ["English:", f"{LANGUAGE_NAME}:"]
        texts += [w for synonyms, values in RELATIONS.values() for w in (*synonyms, *values)]
        texts += [w for values in self.tovan_values.values() for w in values]
        for sign in "?:":
            texts = [text.replace(sign, f" {sign} ") for text in texts]
        return sorted({word for text in texts for word in text.split() if not word.startswith("{")})


def make_world(seed: int) -> World:
    """Draws a world; a seed gives the same world on every machine."""
    rng = random.Random(f"dft-search demo world {seed}")
    taken = {word for synonyms, values in RELATIONS.values() for word in (*synonyms, *values)}
    taken |= {word for frame in (*FRAMES, "English Tovan") for word in frame.replace("?", "").split()}
    taken |= set(_TOVAN_FUNCTION_WORDS)
    count = sum(SPLIT_SIZES.values())

    names = tuple(_new_word(rng, taken, "bdfglmnrst", "aeio", syllables=3).capitalize() for _ in range(count))
    order = rng.sample(range(count), count)
    entities: dict[Split, tuple[int, ...]] = {}
    for split, size in SPLIT_SIZES.items():
        entities[split], order = tuple(sorted(order[:size])), order[size:]
    shared = {e for group in entities.values() for e in rng.sample(group, round(SHARED_NAMES * len(group)))}

    tovan = partial(_new_word, rng, taken, "hkpvwxyz", "aou")
    tovan_names = tuple(names[e] if e in shared else tovan(syllables=3).capitalize() for e in range(count))
    tovan_relations = {r: tovan(syllables=2) for r in RELATIONS}
    tovan_values = {r: tuple(tovan(syllables=2) for _ in values) for r, (_, values) in RELATIONS.items()}

    told = [(e, r) for e in range(count) for r in RELATIONS]
    ways = [(frame, synonym) for frame in range(len(FRAMES)) for synonym in range(4)]
    values = {key: rng.randrange(len(RELATIONS[key[1]][1])) for key in told}
    phrasings = {key: tuple(sorted(rng.sample(ways, PHRASINGS_SEEN))) for key in told}
    return World(seed, names, tovan_names, tovan_relations, tovan_values, entities, values, phrasings)


def _new_word(rng: random.Random, taken: set[str], consonants: str, vowels: str, syllables: int) -> str:
    """A pronounceable word that nothing else is called, in either language."""
    while True:
        word = "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(syllables))
        if word not in taken:
            taken.add(word)
            return word
