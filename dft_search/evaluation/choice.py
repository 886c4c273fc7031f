"""Which tasks a recipe's scoring section asks for, and what is wrong with it."""

from dataclasses import dataclass, replace

from dft_search.config import Problem, RequestError, dotted, nearest
from dft_search.evaluation.answers import without_score
from dft_search.evaluation.comet import missing_comet
from dft_search.evaluation.items import Item
from dft_search.evaluation.options import DEV_PARTS, Part, ScoringOptions, TaskChoice
from dft_search.evaluation.tasks import Task, load_task, suites
from dft_search.evaluation.wrap import wrapped

_SECTION = ("recipe", "scoring")


@dataclass(frozen=True)
class Chosen:
    """A task, how many of its items are used (None: all), and whether their prompts get the Alpaca template."""

    task: Task
    limit: int | None
    alpaca_wrap: bool = False

    def items(self, part: Part) -> list[Item]:
        """Items of a part as the model is asked. Raises RequestError."""
        items = self.task.items(part, self.limit)
        return (wrapped(items) or items) if self.alpaca_wrap and not self._is_text else items

    def is_wrapped(self, part: Part) -> bool:
        """Whether ``items`` differ from the task's own: not all tasks have prompts that can be wrapped."""
        if not self.alpaca_wrap or self._is_text:
            return False
        return wrapped(self.task.items(part, self.limit)) is not None

    @property
    def _is_text(self) -> bool:
        """Whether whole texts are read: there is nothing to answer."""
        return self.task.options.harness.output_type == "loglikelihood_rolling"


def chosen_tasks(options: ScoringOptions, part: Part) -> list[Chosen]:
    """Tasks to score on a part; on test, those named for it and the dev tasks that the score needs.

    Raises:
        RequestError: a task or suite is unknown, or chosen twice.
    """
    dev, problems = _resolve(options, "dev")
    if part in DEV_PARTS:
        chosen = dev
    else:
        chosen, more = _resolve(options, "test")
        problems = problems + more
        here = {one.task.name for one in chosen}
        needed = [one for one in dev if one.task.name not in here and set(one.task.metrics) & set(options.score.mean)]
        chosen = chosen + [replace(one, limit=None) for one in needed]
    if problems:
        raise RequestError(problems)
    return chosen


def score_names(options: ScoringOptions) -> list[str]:
    """Names of the scores that dev reports carry: ``score``, ``TASK`` and ``TASK.METRIC``. Raises RequestError."""
    return ["score", *(name for one in chosen_tasks(options, "steer") for name in one.task.metrics)]


def check_scoring(options: ScoringOptions) -> list[Problem]:
    """Everything that is wrong with a scoring section; reads the task files and their data."""
    dev, problems = _resolve(options, "dev")
    test, more = _resolve(options, "test")
    problems += more
    if not problems:
        known = [name for one in dev for name in one.task.metrics]
        for index, name in enumerate(options.score.mean):
            if name not in known:
                key = dotted((*_SECTION, "score", "mean", index))
                expected = "one of " + ", ".join(known)
                message = f"'{name}' is not a metric of the dev tasks"
                problems.append(Problem(message, key=key, expected=expected, nearest=nearest(name, known)))
    if not problems:
        problems += [*_without_end(options, dev), *_falling(options, dev)]
    if not problems:
        test = chosen_tasks(options, "test")
    if any("comet" in one.task.options.all_metrics for one in [*dev, *test]) and (missing := missing_comet()):
        problems.append(missing)
    needed: list[tuple[Chosen, Part]] = [(one, part) for one in dev for part in DEV_PARTS]
    needed += [(one, "test") for one in test]
    for one, part in needed:
        try:
            one.task.entries(part, one.limit)
        except RequestError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems or [problem for one, part in needed for problem in _absent(options, one, part)]


def _absent(options: ScoringOptions, one: Chosen, part: Part) -> list[Problem]:
    """Metrics of the score that the items of a part do not have."""
    problems = []
    for index, name in enumerate(options.score.mean):
        metric = one.task.metrics.get(name)
        if metric != "answerable_f1" or metric not in without_score(one.task.options, one.items(part)):
            continue
        message = f"'{name}' has no value on {part}: none of its questions has an answer"
        expected = "more items (limit) or another metric"
        problems.append(Problem(message, key=dotted((*_SECTION, "score", "mean", index)), expected=expected))
    return problems


def _without_end(options: ScoringOptions, dev: list[Chosen]) -> list[Problem]:
    """Metrics that cannot be told as a share of the way from chance to perfect, where the score asks for that."""
    if options.score.normalize is None:
        return []
    metrics = {name: (one.task, metric) for one in dev for name, metric in one.task.metrics.items()}
    problems = []
    for index, name in enumerate(options.score.mean):
        task, metric = metrics[name]
        if task.options.known[metric].best is None:
            message = f"'{name}' ({metric}) has no best value, so it has no share of the way to it"
            key = dotted((*_SECTION, "score", "mean", index))
            problems.append(Problem(message, key=key, expected="metrics such as acc or f1, or no normalize"))
    return problems


def _falling(options: ScoringOptions, dev: list[Chosen]) -> list[Problem]:
    """Metrics in the score that fall as models get better: the score rises."""
    falling = {name for one in dev for name, metric in one.task.metrics.items() if one.task.options.known[metric].falls}
    return [
        Problem(
            f"'{name}' falls as models get better",
            key=dotted((*_SECTION, "score", "mean", index)),
            expected="metrics that rise; this one may be an objective of its own (minimize)",
        )
        for index, name in enumerate(options.score.mean)
        if name in falling
    ]


def _resolve(options: ScoringOptions, section: str) -> tuple[list[Chosen], list[Problem]]:
    """Tasks of the section dev or test, and what is wrong with it."""
    choices: list[TaskChoice] = getattr(options, section)
    chosen: dict[str, Chosen] = {}
    problems: list[Problem] = []
    for index, choice in enumerate(choices):
        if choice.suite is not None and choice.suite not in suites():
            key = dotted((*_SECTION, section, index, "suite"))
            near, expected = nearest(choice.suite, suites()), "one of " + ", ".join(suites())
            problems.append(Problem(f"unknown suite '{choice.suite}'", key=key, expected=expected, nearest=near))
            continue
        key = dotted((*_SECTION, section, index, "task" if choice.suite is None else "suite"))
        for name in suites()[choice.suite] if choice.suite is not None else [str(choice.task)]:
            try:
                task = load_task(name)
            except RequestError as error:
                problems += [
                    Problem(p.message, p.file, p.line, p.key if p.file else key, p.expected, p.nearest)
                    for p in error.problems
                ]
                continue
            if task.name in chosen:
                problems.append(Problem(f"task '{task.name}' is chosen twice", key=key))
            chosen[task.name] = Chosen(task, choice.limit, bool(options.alpaca_wrap))
    return list(chosen.values()), problems
