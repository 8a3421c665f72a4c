"""Finds out, once a list, what somebody is up to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import Protocol

from ranking_service import metrics
from ranking_service.intents.intent import NOTHING_UNDERSTOOD, IntentBook, Understood, understood
from ranking_service.intents.words import Words, done, said, session_items
from ranking_service.stages import Journal
from ranking_service.taste import Taste
from ranking_service.vector_cache import KnownItem
from service_runtime.errors import DeadlineTooShort, ZhiyinError
from service_runtime.label_files import UNKNOWN
from service_runtime.label_sets import LabelSet

_COMPONENT = "intents"
_PAUSE_S = 1.0


class Classifier(Protocol):
    """Tells which label of a set a text has."""

    async def classify(self, labels: LabelSet, text: str) -> Mapping[str, float]:
        """The probability of each label."""
        ...

    async def learn(self, labels: LabelSet) -> None:
        """Has whoever tells them apart read the words of labels, however long that takes."""
        ...


class IntentReader:
    """Reads intents.

    Args:
        book: The deployment's labels.
        classifier: Tells them apart.
    """

    def __init__(self, book: IntentBook, classifier: Classifier) -> None:
        self._book, self._classifier = book, classifier

    async def warm(self) -> None:
        """Has all labels read, so that no list waits for that; tries until the encoder is there."""
        for intents in self._book.sets():
            while True:
                with contextlib.suppress(ZhiyinError):
                    await self._classifier.learn(intents.labels)
                    break
                await asyncio.sleep(_PAUSE_S)

    async def read(
        self, taste: Taste, known_items: Awaitable[Mapping[str, KnownItem] | None], journal: Journal
    ) -> Understood:
        """What the user is up to; nothing, and a report, when that cannot be found out.

        Args:
            taste: The words, before anybody was asked.
            known_items: Facts about the items of the history; waited for only where their titles are all there is.
            journal: Gets the report.
        """
        intents = self._book.of(taste.query.catalog)
        if intents is None or not taste.query.reads_intents:
            return NOTHING_UNDERSTOOD
        words = said(taste) or await _done_lately(taste, known_items)
        if words is None:
            return NOTHING_UNDERSTOOD
        try:
            probabilities = await self._classifier.classify(intents.labels, words.text)
        except ZhiyinError as error:
            reason = "DEADLINE" if isinstance(error, DeadlineTooShort) else "UNAVAILABLE"
            journal.degrade(_COMPONENT, reason, f"what the words are after could not be told: {error.message}")
            return NOTHING_UNDERSTOOD
        found = understood(intents, probabilities, words.share)
        metrics.INTENTS.labels(found.labels[0][0] if found.labels else UNKNOWN).inc()
        return found


async def _done_lately(taste: Taste, known_items: Awaitable[Mapping[str, KnownItem] | None]) -> Words | None:
    ids = session_items(taste)
    known = await known_items if ids else None
    return done(ids, known) if known else None
