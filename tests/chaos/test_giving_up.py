"""Who is told to end gives up the runs that have begun, however long they would take."""

import threading
import time
from pathlib import Path

import pytest
from tests.chaos.api import Api, GivenUp, Watcher
from tests.chaos.campaign import Campaign

from quatrain.v1 import job_pb2


def test_a_stopped_campaign_waits_neither_for_answers_nor_for_jobs(tmp_path: Path) -> None:
    campaign, api = Campaign(tmp_path, None), Api(["127.0.0.1:1"])
    api.give_up = campaign._give_up
    threading.Timer(0.5, campaign.stop).start()

    with pytest.raises(GivenUp):
        api.retry_while_unavailable(
            lambda stub: stub.GetJob(job_pb2.GetJobRequest(job_id="j"), timeout=1.0), time.monotonic() + 90.0
        )
    with pytest.raises(GivenUp):
        Watcher(api, "j").await_end(time.monotonic() + 90.0)

    assert campaign.until == 0.0
    api.close()
