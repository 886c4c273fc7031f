"""The demo's files as records: parallel training rows, and multiple-choice questions in both languages."""

from typing import TypedDict

from dft_search.data.template import render_prompt
from dft_search.demo.world import RELATIONS, Fact, Split, World


class TrainRow(TypedDict):
    """One parallel row, with the field names that the data reader takes by default."""

    id: str
    en_instruction: str
    en_input: str
    en_output: str
    tgt_instruction: str
    tgt_input: str
    tgt_output: str


class Question(TypedDict):
    """One multiple-choice question: the rendered prompt, its choices, the index of the right one."""

    id: str
    prompt: str
    choices: list[str]
    answer: int
    kind: str  # "shared_name": the entity is called the same in both languages; "own_name": it is not


def train_rows(world: World) -> list[TrainRow]:
    """The facts of the train entities, in plain English and in Tovan."""
    return [
        TrainRow(
            id=identify(world, fact),
            en_instruction=world.english_question(fact),
            en_input="",
            en_output=world.english_answer(fact),
            tgt_instruction=world.tovan_question(fact),
            tgt_input="",
            tgt_output=world.tovan_answer(fact),
        )
        for fact in world.facts("train")
    ]


def tovan_questions(world: World, split: Split) -> list[Question]:
    """Questions in Tovan; choices are all values of the relation in Tovan and in English, of which one is right.

    The right value in English counts as wrong: a model that understands and answers in English has not learned Tovan.
    """
    questions = []
    for fact in world.facts(split):
        choices = [*world.tovan_values[fact.relation], *RELATIONS[fact.relation][1]]
        questions.append(_question(world, fact, world.tovan_question(fact), choices))
    return questions


def english_questions(world: World, split: Split) -> list[Question]:
    """The same questions, under the same ids, in plain English with English choices: what training may make forget."""
    return [
        _question(world, fact, world.english_question(fact), list(RELATIONS[fact.relation][1]))
        for fact in world.facts(split)
    ]


def identify(world: World, fact: Fact) -> str:
    """Id of a fact in all files and languages."""
    return f"{world.names[fact.entity]}-{fact.relation}".lower()


def _question(world: World, fact: Fact, question: str, choices: list[str]) -> Question:
    return Question(
        id=identify(world, fact),
        prompt=render_prompt(question, "").text,
        choices=choices,
        answer=fact.value,
        kind="shared_name" if world.shared_name(fact.entity) else "own_name",
    )
