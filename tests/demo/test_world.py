"""The world: the same bytes from the same seed, entities that never mix, shipped files as they are made."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dft_search.config import expand_path
from dft_search.demo.build import world_records, write_lines
from dft_search.demo.text import PretrainingText
from dft_search.demo.world import FRAMES, PHRASINGS_SEEN, RELATIONS, SPLIT_SIZES, World, make_world

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module", params=SEEDS)
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param)


def test_the_same_seed_gives_the_same_world_and_text():
    assert make_world(1) == make_world(1)
    texts = [next(PretrainingText(make_world(1), seed=0).batches(64)) for _ in range(2)]
    assert texts[0] == texts[1]


def test_other_seeds_give_other_worlds():
    worlds = [make_world(seed) for seed in SEEDS]
    assert len({w.names for w in worlds}) == len({tuple(w.values.values()) for w in worlds}) == len(SEEDS)


def test_no_entity_is_in_two_splits(world: World):
    entities = [entity for group in world.entities.values() for entity in group]
    assert sorted(entities) == list(range(sum(SPLIT_SIZES.values())))


def test_no_fact_of_dev_or_test_is_in_a_training_row(world: World):
    records = world_records(world)
    rows = {row["tgt_instruction"] for row in records["train.jsonl"]}
    asked = {split: {q["prompt"] for q in records[f"questions_{split}.jsonl"]} for split in ("dev", "test")}
    assert not asked["dev"] & asked["test"]
    assert not any(row in prompt for prompts in asked.values() for prompt in prompts for row in rows)


def test_more_than_500_unseen_questions(world: World):
    records = world_records(world)
    assert len(records["questions_dev.jsonl"]) + len(records["questions_test.jsonl"]) >= 500


def test_questions_have_one_right_choice_among_both_languages(world: World):
    for split in ("dev", "test"):
        for question, fact in zip(world_records(world)[f"questions_{split}.jsonl"], world.facts(split), strict=True):
            assert question["choices"][question["answer"]] == world.tovan_answer(fact)
            assert world.english_answer(fact) in question["choices"]
            assert len(set(question["choices"])) == 2 * len(RELATIONS[fact.relation][1])


def test_a_fact_has_one_id_in_both_languages(world: World):
    records = world_records(world)
    for split in ("dev", "test"):
        ids = [[q["id"] for q in records[f"questions_{name}.jsonl"]] for name in (split, f"en_{split}")]
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == len(ids[0])


def test_no_word_means_two_things(world: World):
    tovan = [word for values in world.tovan_values.values() for word in values] + list(world.tovan_relations.values())
    english = [word for synonyms, values in RELATIONS.values() for word in (*synonyms, *values)]
    names = set(world.names) | set(world.tovan_names)
    assert max(Counter([*tovan, *english, *names]).values()) == 1


def test_share_of_common_names(world: World):
    for group in world.entities.values():
        assert sum(map(world.shared_name, group)) == round(0.6 * len(group))


def test_every_fact_is_told_in_several_phrasings(world: World):
    assert all(len(set(ways)) == PHRASINGS_SEEN for ways in world.phrasings.values())
    assert len({frame for ways in world.phrasings.values() for frame, _ in ways}) == len(FRAMES)


def test_pretraining_tells_facts_in_tovan_about_the_pool_alone():
    world = make_world(0)
    batches = PretrainingText(world, seed=3).batches(128)
    texts = [text for _ in range(20) for text in next(batches)]
    asked = {text.removeprefix("Q ").split(" A ")[0] for text in texts if text.startswith("Q su ")}
    assert asked == {world.tovan_question(fact) for fact in world.facts("pool")}


@pytest.mark.parametrize("name", sorted(world_records(make_world(0))))
def test_the_shipped_files_are_those_of_world_0(name: str, tmp_path: Path):
    write_lines(tmp_path / name, world_records(make_world(0))[name])
    assert (tmp_path / name).read_bytes() == Path(expand_path(f"package:demo/{name}")).read_bytes()


def test_records_are_json_lines(tmp_path: Path):
    records = world_records(make_world(2))["train.jsonl"]
    write_lines(tmp_path / "rows.jsonl", records)
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == list(records)
