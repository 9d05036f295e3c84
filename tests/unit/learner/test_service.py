"""The session: who may do what when, what is attached to, what is recorded, what ends it."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.learner.stand import Stand, with_stand

from quatrain.batches import read_tokens
from quatrain.digests import sha256_hex
from quatrain.errors import Fenced, InvalidInput, LearnerBusy, RunFailed, Unavailable, WrongState
from quatrain.learner.requests import Token
from quatrain.rpc.streams import Beat, with_heartbeats
from quatrain.storage.folders import prefix_of

ONE = Token("job-1", 1, 1)


@pytest.mark.parametrize(
    ("token", "open_error", "use_error"),
    [
        (Token("job-1", 2, 2), None, None),
        (Token("job-1", 2, 3), None, WrongState),
        (Token("job-1", 3, 1), None, WrongState),
        (Token("job-1", 2, 1), Fenced, Fenced),
        (Token("job-1", 1, 9), Fenced, Fenced),
        (Token("job-2", 9, 9), LearnerBusy, LearnerBusy),
    ],
)
def test_the_fencing_table(
    tmp_path: Path, token: Token, open_error: type[WrongState] | None, use_error: type[WrongState] | None
) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(replace(stand.request, token=Token("job-1", 2, 2)))
        uses: list[Callable[[], Any]] = [
            lambda: service.publish(token, 0),
            lambda: service.save(token, 0),
            lambda: service.touch(token),
            lambda: service.step(token, 1, stand.batch(1)),
        ]
        for use in uses:
            if use_error is None:
                result = use()
                await result if result is not None else None
            else:
                with pytest.raises(use_error) as caught:
                    use()
                assert type(caught.value) is use_error
        if open_error is None:
            assert (await service.open(replace(stand.request, token=token))).token == token
        else:
            with pytest.raises(open_error, match="job-1"):
                await service.open(replace(stand.request, token=token))
            assert service.status().token == Token("job-1", 2, 2)

    with_stand(tmp_path, act)


def test_a_token_that_was_superseded_stays_out_after_the_session_is_closed(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(replace(stand.request, token=Token("job-1", 2, 1)))
        stand.service.close(Token("job-1", 2, 1))
        stand.service.close(Token("job-1", 2, 1))
        with pytest.raises(Fenced):
            await stand.service.open(stand.request)
        with pytest.raises(WrongState, match="no open session"):
            stand.service.publish(Token("job-1", 2, 1), 0)
        await stand.service.open(replace(stand.request, token=Token("job-2", 1, 1)))

    with_stand(tmp_path, act)


def test_the_log_is_asked_before_a_session_is_given(tmp_path: Path) -> None:
    def refuse(token: Token) -> None:
        raise Fenced(f"{token} is superseded")

    async def act(stand: Stand) -> None:
        with pytest.raises(Fenced):
            await stand.service.open(stand.request)
        assert stand.service.status().token is None

    with_stand(tmp_path, act, log_check=refuse)


def test_steps_attach_repeat_and_refuse_what_does_not_follow(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        stand.backend.gate.clear()
        first = service.step(ONE, 1, stand.batch(1))
        attached = service.step(ONE, 1, stand.batch(1))
        await asyncio.sleep(0.05)
        assert service.status().running_step == 1
        with pytest.raises(WrongState, match="busy with step of step 1"):
            service.step(ONE, 2, stand.batch(2))
        with pytest.raises(WrongState, match="busy with step"):
            service.publish(ONE, 0)
        with pytest.raises(WrongState, match="busy with step"):
            await service.logprobs(ONE, [], [], 1.0)
        stand.backend.gate.set()
        result = await first
        with pytest.raises(WrongState, match="at step 1"):
            service.step(ONE, 3, stand.batch(3))
        assert await attached is result
        assert await service.step(ONE, 1, stand.batch(1)) is result
        assert stand.backend.steps == 1
        assert result.tokens is not None
        assert len(read_tokens(stand.store.get(result.tokens.key))) == 10
        assert result.tokens.key == "jobs/job-1/ppo/tokens/1-1.parquet"
        await service.step(ONE, 2, stand.batch(2))
        with pytest.raises(WrongState, match="at step 2"):
            service.step(ONE, 1, stand.batch(1))
        with pytest.raises(InvalidInput, match="sealed batch"):
            service.step(ONE, 3, None)
        with pytest.raises(WrongState, match="cannot publish step 1"):
            service.publish(ONE, 1)

    with_stand(tmp_path, act)


def test_a_cancelled_caller_does_not_stop_the_step(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        stand.backend.gate.clear()
        work = stand.service.step(ONE, 1, stand.batch(1))
        caller = asyncio.create_task(asyncio.wait({work}))
        await asyncio.sleep(0.02)
        caller.cancel()
        stand.backend.gate.set()
        assert (await stand.service.step(ONE, 1, stand.batch(1))).step == 1
        assert stand.backend.steps == 1

    with_stand(tmp_path, act)


def test_a_take_over_stops_the_running_step(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        stand.backend.gate.clear()
        stale_step = stand.service.step(ONE, 1, stand.batch(1))
        await asyncio.sleep(0.02)
        newer = Token("job-1", 2, 2)
        status = await stand.service.open(replace(stand.request, token=newer))
        assert (status.token, status.step) == (newer, 0)
        with pytest.raises(Fenced):
            await stale_step
        stand.backend.gate.set()
        assert (await stand.service.step(newer, 1, stand.batch(1))).step == 1

    with_stand(tmp_path, act)


def test_a_take_over_stops_a_step_that_still_reads_its_batch(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        stale_step = stand.service.step(ONE, 1, stand.batch(1))  # Its task has not begun when the session ends.
        opening = asyncio.create_task(stand.service.open(replace(stand.request, token=Token("job-1", 2, 2))))
        with pytest.raises(Fenced):
            await stale_step
        await opening
        assert stand.backend.steps == 0

    with_stand(tmp_path, act)


def test_a_failed_step_makes_the_session_unusable_until_it_is_opened_again(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        stand.backend.error = RunFailed("too many skipped updates")
        for _ in range(2):
            with pytest.raises(RunFailed):
                await stand.service.step(ONE, 1, stand.batch(1))
        with pytest.raises(RunFailed):
            stand.service.save(ONE, 0)
        stand.backend.error = None
        newer = Token("job-1", 1, 2)
        await stand.service.open(replace(stand.request, token=newer))
        assert (await stand.service.step(newer, 1, stand.batch(1))).step == 1

    with_stand(tmp_path, act)


def test_a_store_that_is_away_after_the_step_costs_no_second_training(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        batch = stand.batch(1)
        stand.store.away = True
        with pytest.raises(Unavailable):
            await stand.service.step(ONE, 1, batch)
        stand.store.away = False
        assert (await stand.service.step(ONE, 1, batch)).step == 1
        assert stand.backend.steps == 1

    with_stand(tmp_path, act)


def test_a_step_that_is_not_stored_yet_is_written_under_no_other_number(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        batch = stand.batch(1)
        stand.store.away = True
        with pytest.raises(Unavailable):
            await service.step(ONE, 1, batch)
        stand.store.away = False
        uses: list[Callable[[], Any]] = [
            lambda: service.publish(ONE, 0),
            lambda: service.save(ONE, 0),
            lambda: service.export(ONE, {}),
        ]
        for use in uses:
            with pytest.raises(WrongState, match=r"Step 1 .* not stored"):
                use()
        with pytest.raises(WrongState, match="not stored"):
            await service.logprobs(ONE, [], [], 1.0)
        await service.step(ONE, 1, batch)
        assert (await service.save(ONE, 1)).key == "jobs/job-1/ppo/checkpoints/1-1/manifest.json"

    with_stand(tmp_path, act)


def test_a_silent_owner_loses_the_session(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        stand.clock[0] += 59.0
        service.status(Token("job-1", 1, 1))
        service.status(None)
        stand.clock[0] += 59.0
        assert not service.close_if_silent()
        service.status(Token("job-9", 1, 1))
        stand.clock[0] += 2.0
        assert service.close_if_silent()
        assert service.status().token is None
        await service.open(replace(stand.request, token=Token("job-2", 1, 1)))

    with_stand(tmp_path, act)


def test_a_checkpoint_opens_again_where_it_was_saved(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        await service.step(ONE, 1, stand.batch(1))
        manifest = await service.save(ONE, 1)
        assert await service.save(ONE, 1) == manifest
        expected = await service.step(ONE, 2, stand.batch(2))
        assert manifest.key == "jobs/job-1/ppo/checkpoints/1-1/manifest.json"
        assert manifest.size == len(stand.store.get(manifest.key))
        newer = Token("job-1", 1, 2)
        status = await service.open(replace(stand.request, token=newer, checkpoint=manifest))
        assert (status.step, status.policy_version) == (1, 1)
        again = await service.step(newer, 2, stand.batch(2))
        assert again.metrics == expected.metrics
        assert again.tokens is not None
        assert again.tokens.key.endswith("2-2.parquet")

    with_stand(tmp_path, act)


def test_publishing_names_version_and_attempt(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        start = await service.publish(ONE, 0)
        assert (start.uri, start.policy_version) == ("store:jobs/job-1/ppo/policy/0-1", 0)
        await service.step(ONE, 1, stand.batch(1))
        published = await service.publish(ONE, 1)
        assert await service.publish(ONE, 1) == published
        assert (published.uri, published.policy_version) == ("store:jobs/job-1/ppo/policy/1-1", 1)
        assert published.digest == sha256_hex(stand.store.get("jobs/job-1/ppo/policy/1-1/manifest.json"))

    with_stand(tmp_path, act)


def test_equal_exports_have_equal_digests_and_strange_names_are_refused(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        service = stand.service
        await service.open(stand.request)
        first = await service.export(ONE, {"README.md": b"model"})
        assert await service.export(ONE, {"README.md": b"model"}) == first
        other = await service.export(ONE, {"README.md": b"another"})
        assert other.model.digest != first.model.digest
        assert other.weights_sha256 == first.weights_sha256
        prefix = prefix_of(first.model.uri)
        assert json.loads(stand.store.get(f"{prefix}/tokenizer.json"))["model"]["vocab"]["f"] == 5
        sums = stand.store.get(f"{prefix}/SHA256SUMS").decode()
        assert f"{sha256_hex(b'model')}  README.md\n" in sums
        for name in ("../evil", "a/b", "manifest.json", "SHA256SUMS", "config.json", "", ".."):
            with pytest.raises(InvalidInput):
                await service.export(ONE, {name: b""})

    with_stand(tmp_path, act)


def test_a_stopping_learner_gives_a_step_up_at_once(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        stand.backend.gate.clear()
        stream = with_heartbeats(stand.service.step(ONE, 1, stand.batch(1)), "train")
        assert isinstance(await anext(stream), Beat)
        await stand.service.hand_back()
        with pytest.raises(Unavailable, match="stopping"):
            await anext(stream)

    with_stand(tmp_path, act)


def test_a_stopping_learner_finishes_a_checkpoint(tmp_path: Path) -> None:
    async def act(stand: Stand) -> None:
        await stand.service.open(stand.request)
        saving = stand.service.save(ONE, 0)
        await stand.service.hand_back()
        assert stand.store.stat(saving.result().key) is not None

    with_stand(tmp_path, act)


def test_a_stopping_learner_refuses_the_stage_that_it_opens(tmp_path: Path) -> None:
    held = threading.Event()

    async def act(stand: Stand) -> None:
        stand.service._thread.submit(held.wait, 20.0)
        opening = asyncio.create_task(stand.service.open(stand.request))
        while stand.service.status().token is None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        await stand.service.hand_back()
        with pytest.raises(Unavailable, match="stopping"):
            await opening
        held.set()

    with_stand(tmp_path, act)
