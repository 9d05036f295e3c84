"""Composition of one score a sample, with sources whose answers the test writes."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.reward.scenery import ids_of, make_tokenizer

from quatrain.errors import InvalidInput, RewardFunctionError
from quatrain.jobspec.reward_section import FunctionSource, ModelSource, ServiceSource, Source
from quatrain.refs import ModelRef
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.backends.fake import FakeBackend
from quatrain.reward.samples import Batch, RawSample
from quatrain.reward.service import Backends, RewardService, ScoreCall, ScoreResult
from quatrain.storage.folders import FolderCache
from quatrain.storage.memory import MemoryStore


class ScriptedBackend:
    """Answers by the source's name."""

    def __init__(self, answers: Mapping[str, SourceScores | Exception]) -> None:
        self._answers = answers
        self.batches: list[Batch] = []
        self.cancelled = False

    async def score(self, source: Source, batch: Batch) -> SourceScores:
        self.batches.append(batch)
        try:
            await asyncio.sleep(0.01 if source.name != "slow" else 60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        answer = self._answers[source.name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Nothing to give back."""


def says(name: str, *values: float | None, offset: float = 0.0, **more: Any) -> SourceScores:
    return SourceScores(values=values, terms={name: values}, version=name, offset=offset, **more)


def raw(completion: str = "cd$", **changes: Any) -> RawSample:
    finish = "stop" if completion.endswith("$") else "length"
    return RawSample(
        **{
            "prompt_ids": ids_of("ab"),
            "completion_ids": ids_of(completion),
            "prompt_json": '"ab"',
            "finish_reason": finish,
            **changes,
        }
    )


def score(
    tmp_path: Path,
    backend: ScriptedBackend | FakeBackend,
    samples: Sequence[RawSample],
    section: dict[str, Any],
    *,
    penalty: float = 0.0,
    trainer_state: str = "",
) -> ScoreResult:
    folder = make_tokenizer(tmp_path / "tokenizer")
    service = RewardService(FolderCache(MemoryStore(), tmp_path / "cache", 2**30), Backends(backend, backend, backend))
    call = ScoreCall("job", tuple(samples), json.dumps(section), ModelRef(folder.as_uri(), ""), penalty, trainer_state)
    return asyncio.run(service.score(call))


def functions(*names: str, **weights: float) -> list[dict[str, Any]]:
    entries = [{"path": f"module:{name}", "name": name} for name in names]
    return entries + [{"path": f"m:{name}", "name": name, "weight": weight} for name, weight in weights.items()]


def test_the_order_is_sum_offset_scale_clip_penalty(tmp_path: Path) -> None:
    answers = {"a": says("a", 3.0, 3.0, 10.0, 10.0), "b": says("b", 4.0, 4.0, -1.0, -1.0)}
    section = {"functions": functions(a=2.0, b=-0.5), "offset": 1.0, "scale": 3.0, "clip": 9.5}
    samples = [raw("c$"), raw("c"), raw("c$"), raw("c")]

    result = score(tmp_path, ScriptedBackend(answers), samples, section, penalty=2.0)

    # (2 * 3 - 0.5 * 4 - 1) * 3 = 9; (20 + 0.5 - 1) * 3 = 58.5 is clipped to 9.5; then the penalty where truncated.
    assert [scored.score for scored in result.scores] == [9.0, 7.0, 9.5, 7.5]
    assert {scored.outcome for scored in result.scores} == {"scored"}
    assert result.scores[1].terms == (("a", 3.0), ("b", 4.0))


def test_a_models_offset_counts_with_its_weight_and_not_in_its_term(tmp_path: Path) -> None:
    section = {"models": [{"uri": "store:x", "name": "taste", "weight": 2.0}], "offset": 0.5}

    result = score(tmp_path, ScriptedBackend({"taste": says("taste", 3.0, offset=1.0)}), [raw()], section)

    assert result.scores[0].score == 2.0 * (3.0 - 1.0) - 0.5
    assert result.scores[0].terms == (("taste", 3.0),)


def test_none_is_left_out_of_the_sum_and_none_from_all_skips(tmp_path: Path) -> None:
    answers = {"a": says("a", None, None), "b": says("b", 4.0, None)}

    result = score(tmp_path, ScriptedBackend(answers), [raw(), raw("c")], {"functions": functions("a", "b")}, penalty=1)

    assert (result.scores[0].outcome, result.scores[0].score) == ("scored", 4.0)
    assert result.scores[0].terms == (("a", None), ("b", 4.0))
    assert (result.scores[1].outcome, result.scores[1].score) == ("skipped", 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_refuses_its_sample_only(tmp_path: Path, value: float) -> None:
    answers = {"a": says("a", value, 1.0), "b": says("b", 1.0, 1.0)}

    result = score(tmp_path, ScriptedBackend(answers), [raw(), raw()], {"functions": functions("a", "b"), "clip": 1})

    assert (result.scores[0].outcome, result.scores[0].reason) == ("refused", f"term 'a' is {value}")
    assert result.scores[0].terms == (("b", 1.0),)
    assert result.scores[1].outcome == "scored"


def test_a_sum_that_overflows_is_refused_though_a_clip_would_hide_it(tmp_path: Path) -> None:
    answers = {"a": says("a", 1e308), "b": says("b", 1e308)}

    result = score(tmp_path, ScriptedBackend(answers), [raw()], {"functions": functions("a", "b"), "clip": 1})

    assert (result.scores[0].outcome, result.scores[0].reason) == ("refused", "the weighted sum is inf")


def test_a_source_can_refuse_a_sample(tmp_path: Path) -> None:
    answers = {"a": says("a", None, 2.0, refused={0: "too long"})}

    result = score(tmp_path, ScriptedBackend(answers), [raw(), raw()], {"functions": functions("a")})

    assert [(scored.outcome, scored.reason) for scored in result.scores] == [("refused", "too long"), ("scored", "")]


def test_malformed_samples_are_refused_before_the_sources_see_them(tmp_path: Path) -> None:
    backend = ScriptedBackend({"a": says("a", 1.0, 2.0)})
    samples = [raw(""), raw("c$"), raw(completion_ids=(99,)), raw("d"), raw(prompt_json="{")]

    result = score(tmp_path, backend, samples, {"functions": functions("a")}, trainer_state='{"step": 4}')

    assert [scored.outcome for scored in result.scores] == ["refused", "scored", "refused", "scored", "refused"]
    assert [scored.score for scored in result.scores] == [0.0, 1.0, 0.0, 2.0, 0.0]
    assert [sample.completion for sample in backend.batches[0].samples] == ["c", "d"]
    assert backend.batches[0].trainer_state == {"step": 4}


def test_without_a_sound_sample_no_source_is_asked(tmp_path: Path) -> None:
    backend = ScriptedBackend({})

    result = score(tmp_path, backend, [raw("")], {"functions": functions("a")})

    assert (len(result.scores), backend.batches) == (1, [])


def test_terms_logged_columns_and_metrics_of_several_sources(tmp_path: Path) -> None:
    answers = {
        "length": says("length", 1.0, 2.0, logged={"seen": ("x", None)}, metrics={"hit": (1.0, 0.0), "only": (3.0,)}),
        "both": SourceScores((5.0, 6.0), {"length": (2.0, 3.0), "tone": (3.0, 3.0)}, "v", logged={"seen": (1, 2)},
                             metrics={"hit": (0.5,)}),
    }  # fmt: skip

    result = score(tmp_path, ScriptedBackend(answers), [raw(), raw()], {"functions": functions("length", "both")})

    assert result.scores[0].terms == (("length", 1.0), ("length_2", 2.0), ("tone", 3.0))
    assert [scored.logged_json for scored in result.scores] == ['{"seen": "x", "seen_2": 1}', '{"seen_2": 2}']
    assert result.metrics == (("hit", 0.5), ("only", 3.0))


def test_an_error_of_one_source_cancels_the_others(tmp_path: Path) -> None:
    backend = ScriptedBackend({"bad": RewardFunctionError("bad function")})

    with pytest.raises(RewardFunctionError, match="bad function"):
        score(tmp_path, backend, [raw()], {"functions": functions("slow", "bad")})

    assert backend.cancelled


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": -1.0}, "missing_eos_penalty"),
        ({"penalty": math.nan}, "missing_eos_penalty"),
        ({"trainer_state": "[]"}, "trainer_state_json"),
        ({"trainer_state": "{"}, "trainer_state_json"),
    ],
)
def test_a_wrong_call_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        score(tmp_path, FakeBackend(), [raw()], {"functions": functions("a")}, **changes)


def test_the_fake_scores_any_source_by_the_ids_alone(tmp_path: Path) -> None:
    section = {"models": [{"uri": "store:x"}]}

    first = score(tmp_path, FakeBackend(), [raw("c$"), raw("d$")], section)
    second = score(tmp_path, FakeBackend(), [raw("d$"), raw("c$")], section)

    values = [scored.score for scored in first.scores]
    assert values == [scored.score for scored in second.scores][::-1]
    assert values[0] != values[1]
    assert all(-1.0 <= value < 1.0 for value in values)
    assert first.reward_version == second.reward_version


def test_each_kind_of_source_goes_to_its_backend() -> None:
    asked = []

    class Noting(ScriptedBackend):
        def __init__(self, kind: str) -> None:
            super().__init__({})
            self._kind = kind

        async def score(self, source: Source, batch: Batch) -> SourceScores:
            asked.append((self._kind, type(source)))
            return says("x", 1.0)

    backends = Backends(Noting("models"), Noting("functions"), Noting("services"))
    empty: Any = None

    async def main() -> None:
        await backends.ask(ModelSource(uri="store:x"), empty)
        await backends.ask(FunctionSource(path="m:f"), empty)
        await backends.ask(ServiceSource(target="h:1"), empty)
        await backends.close()

    asyncio.run(main())

    assert asked == [("models", ModelSource), ("functions", FunctionSource), ("services", ServiceSource)]
