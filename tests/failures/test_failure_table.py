"""Every dependency fails in every way; docs/failures.md says what comes of it, in cells that this test writes.

ZHIYIN_WRITE_FAILURES=1 rewrites the document instead of comparing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.failures.failure_table import Section, committed, render, rewrite
from tests.failures.faults import Fault, encoder_faults, observe, retrieval_faults, store_faults
from tests.failures.outcomes import Outcome
from tests.failures.stack_under_test import StackUnderTest, stack_of_processes, stack_under_test

Rows = dict[str, dict[str, Outcome]]
# What a service does wrong it does every time; a busy machine now and then answers late.
_ATTEMPTS = 3
_ENCODER_STALL, _RETRIEVAL_TIMEOUT = "encoder_stall_s", "retrieval_timeout_s"


async def _rows(stack: StackUnderTest, faults: Sequence[Fault], patient_limit: str) -> Rows:
    rows = {fault.title: await observe(stack, fault, patient_limit) for fault in faults}
    assert stack.flaps == [], "readiness follows a service's own state, not its neighbours'"
    return rows


async def _with_links(folder: Path, faults: Sequence[Fault], patient_limit: str) -> Rows:
    async with stack_under_test(folder) as stack:
        return await _rows(stack, faults, patient_limit)


async def _with_processes(folder: Path) -> Rows:
    folder.mkdir()
    async with stack_of_processes(folder) as (stack, *processes):
        return await _rows(stack, store_faults(processes), "")


@pytest.mark.timeout(300)
async def test_every_failure_has_the_documented_answer(tmp_path: Path) -> None:
    for attempt in range(_ATTEMPTS):
        tables = render(await _observed(tmp_path / str(attempt)))
        if os.environ.get("ZHIYIN_WRITE_FAILURES"):
            rewrite(tables)
        if committed().splitlines() == tables.strip().splitlines():
            return
    assert committed().splitlines() == tables.strip().splitlines(), "run with ZHIYIN_WRITE_FAILURES=1 and read the diff"


async def _observed(folder: Path) -> list[Section]:
    folder.mkdir()
    encoder, retrieval = encoder_faults(), retrieval_faults()
    halves = [
        (encoder[::2], _ENCODER_STALL),
        (encoder[1::2], _ENCODER_STALL),
        (retrieval[::2], _RETRIEVAL_TIMEOUT),
        (retrieval[1::2], _RETRIEVAL_TIMEOUT),
    ]
    async with asyncio.TaskGroup() as group:  # mostly they wait
        tasks = [group.create_task(_with_links(folder / str(i), *half)) for i, half in enumerate(halves)]
        tasks.append(group.create_task(_with_processes(folder / "store")))
    observed = [task.result() for task in tasks]
    rows = {**observed[0], **observed[1]}
    of_encoder = {fault.title: rows[fault.title] for fault in encoder}
    rows = {**observed[2], **observed[3]}
    of_retrieval = {fault.title: rows[fault.title] for fault in retrieval}
    sections = [
        Section("The encoder", of_encoder),
        Section("Retrieval, as ranking sees it", {t: _of_ranking(row) for t, row in of_retrieval.items()}),
        Section("The store of retrieval and that of ranking (SQLite)", observed[4]),
    ]
    for section in sections:
        for fault, row in section.rows.items():
            for call, outcome in row.items():
                _check_promises(f"{section.title}: {fault}: {call}", outcome)
    return sections


def _of_ranking(row: dict[str, Outcome]) -> dict[str, Outcome]:
    """Retrieval's own calls do not go through the link that fails."""
    return {call: outcome for call, outcome in row.items() if call.startswith("Rec")}


def _check_promises(where: str, outcome: Outcome) -> None:
    """What holds for every cell."""
    assert "NOT BOUNDED" not in outcome.time, where
    assert "INTERNAL" not in outcome.answer, where
    assert "UNKNOWN" not in outcome.answer, where
    if outcome.answer.startswith(("UNAVAILABLE", "RESOURCE_EXHAUSTED")):
        assert outcome.retry, f"{where}: no hint when to come back"
    if where.endswith("Recommend, warm user") and where.startswith("The encoder"):
        assert outcome.answer == "a list", where
