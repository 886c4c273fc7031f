"""Task files: parts that share nothing, stable shares and limits, and one clear line for every mistake."""

import gzip
import json

import pytest

from dft_search.config import RequestError
from dft_search.evaluation.parts import part_items
from dft_search.evaluation.tasks import load_task, suites, task_names
from tests.evaluation.conftest import make_task, scoring

PARTS = ("steer", "select", "test")


def one_file(folder, rows, **parts):
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    chosen = {part: {"files": ["rows.jsonl"], "items": items} for part, items in parts.items()}
    return load_task(str(make_task(folder, parts=chosen)))


def rows(count):
    return [{"id": i, "prompt": f"question {i}", "choices": ["a", "b"], "answer": 0} for i in range(count)]


def test_shares_are_disjoint_complete_and_a_property_of_the_id(tmp_path):
    task = one_file(tmp_path, rows(300), steer="1/3", select="2/3", test="3/3")
    ids = {part: {item.id for item in task.items(part)} for part in PARTS}
    assert set.union(*ids.values()) == {str(i) for i in range(300)}
    assert sum(map(len, ids.values())) == 300
    assert min(map(len, ids.values())) > 60
    more = one_file(tmp_path, rows(400)[::-1], steer="1/3", select="2/3", test="3/3")
    assert {item.id for item in more.items("steer") if int(item.id) < 300} == ids["steer"]


def test_limits_are_nested_and_keep_the_order(tmp_path):
    task = one_file(tmp_path, rows(100), steer="all")
    few, more = task.items("steer", 10), task.items("steer", 40)
    assert (len(few), len(more)) == (10, 40)
    assert set(few) < set(more)
    assert [int(item.id) for item in more] == sorted(int(item.id) for item in more)
    assert [item.id for item in few] != [str(i) for i in range(10)]
    assert task.items("steer", 1000) == task.items("steer")


def test_an_item_in_two_parts_is_refused(tmp_path):
    with pytest.raises(RequestError, match="parts 'steer' and 'test' share an item"):
        one_file(tmp_path, rows(10), steer="all", test="1/2").items("steer")
    path = make_task(tmp_path)
    steer = (tmp_path / "places.steer.jsonl").read_text().splitlines()
    leaked = {**json.loads(steer[3]), "id": "another"}  # the same question under another id
    (tmp_path / "places.test.jsonl").write_text(json.dumps(leaked))
    with pytest.raises(RequestError, match=r"share an item \(ids 'steer-3' and 'another'\)"):
        load_task(str(path)).items("steer")


def test_clusters_stay_together(tmp_path):
    articles = [{**row, "article": f"article {row['id'] // 6}"} for row in rows(300)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, articles)), encoding="utf-8")
    parts = {part: {"files": ["rows.jsonl"], "items": f"{n}/3"} for n, part in enumerate(PARTS, 1)}
    task = load_task(str(make_task(tmp_path, parts=parts, cluster="article")))
    found = {part: {item.cluster for item in task.items(part)} for part in PARTS}
    assert set.union(*found.values()) == {f"article {n}" for n in range(50)} and sum(map(len, found.values())) == 50
    assert all(len(task.items(part)) == 6 * len(found[part]) for part in PARTS)
    (tmp_path / "more.jsonl").write_text(json.dumps({**articles[0], "id": "x", "prompt": "another"}))
    leaking = {"steer": {"files": ["rows.jsonl"]}, "test": {"files": ["more.jsonl"]}}
    with pytest.raises(RequestError, match="parts 'steer' and 'test' share cluster 'article 0'"):
        load_task(str(make_task(tmp_path, parts=leaking, cluster="article"))).items("steer")
    with pytest.raises(RequestError, match="an item has no column 'articel'.*did you mean 'article'"):
        load_task(str(make_task(tmp_path, parts=parts, cluster="articel"))).items("steer")


def test_what_a_part_asks_has_a_hash_of_its_content(tmp_path):
    options = scoring(["places"], make_task(tmp_path))
    first = part_items(options, "select")
    assert part_items(options, "select") == first and first["places"].clusters is None
    assert first["places"].ids == [item.id for item in load_task(str(tmp_path / "places.yaml")).items("select")]
    assert part_items(options, "steer")["places"].digest != first["places"].digest
    file = tmp_path / "places.select.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(lines[0]), "prompt": "changed"}), *lines[1:]]))
    assert part_items(options, "select")["places"].digest != first["places"].digest


GOOD = {"id": 1, "prompt": "question", "choices": ["a", "b"], "answer": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "part 'steer' has no items"),
        ('{"id": 1,', "rows.jsonl:1: is not JSON"),
        ("[1]", "a row is not an object"),
        (json.dumps({**GOOD, "answer": 2}), "has 2 choices, and none of them is marked"),
        (json.dumps({**GOOD, "answer": True}), "none of them is marked"),
        (json.dumps({**GOOD, "choices": ["a", " "]}), "a choice or an answer that is empty"),
        (json.dumps({**GOOD, "choices": "ab"}), "has no list of choices"),
        (json.dumps({**GOOD, "choices": ["a"], "answer": 0}), "fewer than 2 choices"),
        (json.dumps({**GOOD, "prompt": ""}), "has an empty prompt"),
        (json.dumps({"idd": 1, "prompt": "q"}), "an item has no column 'id' (did you mean 'idd'?)"),
        (json.dumps({"id": 1, "promt": "q"}), "no column 'prompt' (did you mean 'promt'?)"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "id '1' occurs twice in part 'steer'"),
    ],
)
def test_broken_rows(tmp_path, text, message):
    path = make_task(tmp_path, parts={"steer": {"files": ["rows.jsonl"]}})
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as error:
        load_task(str(path)).items("steer")
    assert message in str(error.value)


HARNESS = {
    "output_type": "multiple_choice",
    "doc_to_text": "prompt",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
}

GENERATES = {"output_type": "generate_until", "doc_to_text": "prompt", "doc_to_target": "choices"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "accuracy"}, "multiple_choice yields no metric 'accuracy', only acc, acc_norm, margin"),
        ({"metrics": ["acc"]}, "a metric is named twice"),
        ({"task": "a/b"}, "text that matches"),
        ({"harness": {**HARNESS, "output_type": "generated_until"}}, "did you mean 'generate_until'?"),
        ({"harness": {**HARNESS, "output_type": "generate_until"}, "metric": "f1"}, "doc_to_choice belongs to"),
        ({"harness": {**HARNESS, "generation_kwargs": {"until": ["x"]}}}, "belong to generate_until"),
        ({"harness": {**GENERATES, "generation_kwargs": {"until": [""]}}, "metric": "f1", "metrics": []}, "not empty"),
        ({"harness": GENERATES, "metric": "acc", "metrics": []}, "yields no metric 'acc', only f1, exact_match,"),
        ({"harness": GENERATES, "metric": "comet", "metrics": []}, "the metric comet needs doc_to_source"),
        (
            {"harness": GENERATES, "metric": "f1", "metrics": [], "language": "xx", "normalizer": "mlqa"},
            "mlqa knows ar,",
        ),
        ({"harness": {**HARNESS, "doc_to_target": None}}, "doc_to_target is required"),
        ({"harness": {**HARNESS, "doc_to_choice": None}}, "multiple_choice needs it"),
        ({"harness": {**HARNESS, "doc_to_txt": "x"}}, "did you mean 'doc_to_text'?"),
        ({"parts": {"dev": {"files": ["x"]}}}, "unknown key"),
        ({"parts": {"steer": {"files": []}}}, "at least 1 entries"),
        ({"parts": {"steer": {"items": "1/2"}}}, "a part needs files"),
        ({"parts": {"steer": {"files": ["x"], "split": "test"}}}, "split belongs to a task of the harness"),
        ({"parts": {"steer": {"files": ["x"], "items": "3/2"}}}, "there is no share 3/2"),
    ],
)
def test_broken_task_files(tmp_path, changes, message):
    with pytest.raises(RequestError) as error:
        load_task(str(make_task(tmp_path, **changes)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ prompt", "is not a Jinja template"),
        ("{{ question }}", "'question' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
        ("{{ prompt + 1 }}", "cannot be rendered"),
    ],
)
def test_templates_are_rendered_in_a_sandbox(tmp_path, template, message):
    path = make_task(tmp_path, harness={**HARNESS, "doc_to_text": template})
    with pytest.raises(RequestError) as error:
        load_task(str(path)).items("steer")
    assert message in str(error.value)


def test_a_question_that_a_file_holds_twice_stays_in_the_later_part(tmp_path):
    doubled = [{**row, "prompt": f"question {row['id'] % 150}"} for row in rows(300)]
    task = one_file(tmp_path, doubled, steer="1/3", select="2/3", test="3/3")
    asked = {part: {item.text for item in task.items(part)} for part in PARTS}
    assert not any(asked[one] & asked[other] for one in PARTS for other in PARTS if one != other)
    whole = one_file(tmp_path, doubled, test="3/3")
    assert task.items("test") == whole.items("test") and len(set.union(*asked.values())) == 150


def test_a_share_may_be_a_range(tmp_path):
    task = one_file(tmp_path, rows(300), steer="1/10", select="2/10", test="3-10/10")
    ids = {part: {item.id for item in task.items(part)} for part in PARTS}
    assert len(set.union(*ids.values())) == sum(map(len, ids.values())) == 300 and len(ids["test"]) > 200


def test_ids_clusters_and_lists_may_be_templates(tmp_path):
    harness = {**HARNESS, "doc_to_choice": "{{ choices | tojson }}"}
    changed = {"id": "{{ position }}#{{ answer }}", "cluster": "{{ id[:3] }}{{ position // 4 }}", "harness": harness}
    task = load_task(str(make_task(tmp_path, **changed)))
    items = task.items("steer")
    assert [item.id for item in items[:3]] == ["0#0", "1#1", "2#0"]
    assert [item.cluster for item in items[:5]] == ["ste0", "ste0", "ste0", "ste0", "ste1"]
    assert items[0].choices == ("the mat", "the house")


def test_files_in_the_form_of_squad_and_packed_ones(tmp_path):
    questions = [
        {"id": f"q{k}", "question": f"Q {k} ?", "answers": [{"text": "a", "answer_start": 0}]} for k in range(4)
    ]
    articles = [
        {"title": f"T{n}", "paragraphs": [{"context": "a b", "qas": questions[2 * n : 2 * n + 2]}]} for n in (0, 1)
    ]
    (tmp_path / "rows.json").write_text(json.dumps({"data": articles, "version": "1.1"}))
    changed = {
        "metric": "f1",
        "metrics": [],
        "cluster": "title",
        "parts": {"steer": {"files": ["rows.json"]}},
        "harness": {**GENERATES, "doc_to_text": "{{ context }} {{ question }}", "doc_to_target": "answers"},
    }
    items = load_task(str(make_task(tmp_path, **changed))).items("steer")
    assert [(item.id, item.text, item.choices, item.cluster) for item in items[1:3]] == [
        ("q1", "a b Q 1 ?", ("a",), "T0"),
        ("q2", "a b Q 2 ?", ("a",), "T1"),
    ]
    (tmp_path / "rows.json").write_text(json.dumps({"data": [{"title": "T"}]}))
    with pytest.raises(RequestError, match="has not the form of SQuAD: 'paragraphs'"):
        load_task(str(make_task(tmp_path, **changed))).items("steer")

    lines = [{"id": 1, "prompt": "q", "choices": ["x", "", "x"]}, {"id": 2, "prompt": "r", "choices": []}]
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    packed = {**changed, "parts": {"steer": {"files": ["rows.jsonl.gz"]}}, "cluster": None, "harness": GENERATES}
    assert [item.choices for item in load_task(str(make_task(tmp_path, **packed))).items("steer")] == [("x", ""), ("",)]


def test_a_shipped_file_of_several_tasks_has_no_path(tmp_path):
    path = make_task(tmp_path, variants=[{"language": "en"}])
    with pytest.raises(RequestError, match="variants: holds several tasks"):
        load_task(str(path))


def test_a_missing_part_is_refused(tmp_path):
    with pytest.raises(RequestError, match="task places has no part 'steer'"):
        one_file(tmp_path, rows(5), test="all").items("steer")


def test_shipped_tasks_are_complete():
    names = task_names()
    assert {"demo_questions", "demo_questions_en", "xcopa_zh", "xcopa_vi"} < set(names)
    for name in names:
        task = load_task(name)
        assert task.name == name
        assert all(getattr(task.options.parts, part) for part in PARTS)
        assert task.document.path is not None and name.startswith(task.document.path.stem), "how a task is found"
    for suite, members in suites().items():
        assert set(members) <= set(names), suite


def test_the_official_file_of_mkqa(tmp_path, monkeypatch):
    monkeypatch.setenv("DFT_SEARCH_DATA", str(tmp_path))
    answers = [
        [
            {"type": "entity", "entity": "Q1", "text": "北京 <市>", "aliases": ["北平", "'京'"]},
            {"type": "x", "text": "京"},
        ],
        [{"type": "unanswerable", "entity": "", "text": None}],
        [{"type": "long_answer", "text": None, "aliases": []}, {"type": "long_answer", "text": None}],
    ]
    lines = [
        {"example_id": k, "query": f"q {k}", "queries": {"zh_cn": f"问 {k}"}, "answers": {"zh_cn": answers[k % 3]}}
        for k in range(60)
    ]
    (tmp_path / "eval").mkdir()
    packed = gzip.compress("\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    (tmp_path / "eval" / "mkqa.jsonl.gz").write_bytes(packed)
    task = load_task("mkqa_full_zh")
    items = {item.id: item for part in PARTS for item in task.items(part)}
    assert len(items) == 60
    assert (items["3"].text, items["3"].choices) == ("问题: 问 3\n回答:", ("北京 <市>", "京", "北平", "'京'"))
    assert items["4"].choices == items["5"].choices == ("",), "no answer"
