"""All sources' candidates into one pool, each once, who proposed what kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np

from ranking_service.candidate import Flags, Floats, Pool, Provenance, SourceKind
from ranking_service.clients import half_rows, matrix_rows
from ranking_service.rules.questions import RULE_QUERY
from ranking_service.sources.source import Plan
from zhiyin.retrieval.v1.retrieval_service_pb2 import QueryHits, SearchResponse


def merge(plans: Mapping[SourceKind, Plan], reply: SearchResponse) -> Pool:
    """Puts retrieval's answer and the local proposals together. No candidate is lost, none is there twice.

    Args:
        plans: What each source asked for.
        reply: The answer to all of it: hits, and those of the local proposals that exist, match and are available.
    """
    items = list(reply.items)
    ids = [item.id for item in items]
    rows = {item_id: row for row, item_id in enumerate(ids)}
    compact = half_rows(reply.item_vectors) if reply.item_vectors.rows else np.zeros((len(rows), 1), np.float16)
    hits = {result.name: result for result in reply.results}
    provenance = {kind: _provenance(plan, hits, rows) for kind, plan in plans.items()}
    if reply.labels:
        provenance[SourceKind.RULE] = _brought_in(reply, len(rows))
    return Pool(
        ids=ids,
        items=items,
        vectors=compact.astype(np.float32),
        compact=compact,
        query_vectors=_query_vectors(reply),
        provenance=provenance,
        query_scores={
            name: np.array(result.all_scores, np.float32)
            for name, result in hits.items()
            if len(result.all_scores) == len(rows)
        },
        labels=label_flags(reply),
    )


def label_flags(reply: SearchResponse) -> dict[str, Flags]:
    """Which items of a reply each label matches, by the label's name; shape (n,) each."""
    flags = {}
    for label in reply.labels:
        flags[label.name] = np.zeros(len(reply.items), dtype=bool)
        flags[label.name][list(label.item_indices)] = True
    return flags


def _brought_in(reply: SearchResponse, count: int) -> Provenance:
    """What is in the reply because a rule asked for it, sources or not; its ranks say nothing."""
    asked = [index for result in reply.results if result.name.startswith(RULE_QUERY) for index in result.item_indices]
    added = [index for label in reply.labels for index in label.added_indices]
    rows = list(dict.fromkeys([*asked, *added]))
    ranks = np.zeros(count, dtype=np.int32)
    ranks[rows] = np.arange(1, len(rows) + 1)
    return Provenance(ranks, np.zeros(count))


def _provenance(plan: Plan, hits: Mapping[str, QueryHits], rows: Mapping[str, int]) -> Provenance:
    ranks = np.zeros(len(rows), dtype=np.int32)
    scores = np.zeros(len(rows), dtype=np.float64)
    found = [(rows[item_id], score) for item_id, score in plan.proposals if item_id in rows]
    found += _take_turns([hits[ask.name] for ask in plan.asks if ask.name in hits])
    if not found:
        return Provenance(ranks, scores)
    # In a dict, in the order of the ranks: writing single elements of arrays costs four times as much.
    best = dict(found)
    if len(best) < len(found):
        for row, score in found:
            if score > best[row]:
                best[row] = score
    proposed = np.fromiter(best, dtype=np.int32, count=len(best))
    ranks[proposed] = np.arange(1, len(best) + 1)
    scores[proposed] = list(best.values())
    return Provenance(ranks, scores)


def _take_turns(results: Sequence[QueryHits]) -> list[tuple[int, float]]:
    """The hits of a source's queries: each query's best, then each one's second, and so on."""
    columns = [list(zip(result.item_indices, result.scores, strict=True)) for result in results]
    if len(columns) == 1:
        return columns[0]
    return [hit for place in zip_longest(*columns) for hit in place if hit is not None]


def _query_vectors(reply: SearchResponse) -> dict[str, Floats]:
    if not reply.query_vectors.rows:
        return {}
    vectors = matrix_rows(reply.query_vectors)
    return {result.name: vector for result, vector in zip(reply.results, vectors, strict=True) if vector.any()}
