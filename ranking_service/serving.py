"""Puts the read side together, from whatever answers for users, statistics, encoder and retrieval.

The server builds it over gRPC clients; evaluation and benchmarks build the same over objects in their own process.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from ranking_service.bundles.serving_bundle import BUILTIN, BundleOf, ServingBundle
from ranking_service.candidate import SourceKind
from ranking_service.catalog_scout import CatalogScout
from ranking_service.clients import Encoder, Retrieval
from ranking_service.intents.intent_reader import IntentReader
from ranking_service.list_store import ListStore
from ranking_service.lists import ListServer
from ranking_service.pipeline import ListLimits, Recommender, Understands
from ranking_service.rerank import Reranker
from ranking_service.rules.rule import NO_RULES, RuleBook
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.settings import RankingSettings
from ranking_service.shelf import ShelfUnderstanding, shelf_weights
from ranking_service.sources.catalog import CatalogSource
from ranking_service.sources.collaborative import CollaborativeSource
from ranking_service.sources.community import CommunitySource
from ranking_service.sources.exploration import ExplorationSource
from ranking_service.sources.factors import FactorsSource
from ranking_service.sources.fresh import FreshSource
from ranking_service.sources.history import HistorySource
from ranking_service.sources.neighbours import NeighboursSource
from ranking_service.sources.popular import PopularSource
from ranking_service.sources.profile import ProfileSource
from ranking_service.sources.query import QuerySource
from ranking_service.sources.sequence import SequenceSource
from ranking_service.sources.similar import SimilarSource
from ranking_service.sources.source import Source
from ranking_service.sources.transition import TransitionSource
from ranking_service.understanding import Understanding
from ranking_service.users.user_state import Statistics, UserReader
from ranking_service.vector_cache import ItemCache
from service_runtime.signed_token import TokenSigner


@dataclass(frozen=True, slots=True)
class Serving:
    """What the read side is made of."""

    main: Recommender
    lists: ListServer
    shelves: ListServer
    reranker: Reranker
    scout: CatalogScout
    signer: TokenSigner
    retrieval: Retrieval
    store: ListStore


def build_serving(
    settings: RankingSettings,
    users: UserReader,
    statistics: Statistics,
    encoder: Encoder,
    retrieval: Retrieval,
    signer: TokenSigner,
    executor: Executor,
    bundle_of: BundleOf,
    rules_of: Callable[[str], RuleBook] = lambda _: NO_RULES,
    intents: IntentReader | None = None,
) -> Serving:
    """The read side. `executor` runs the arithmetic, `rules_of` knows a catalogue's rules; close `scout` at the end.

    `intents` finds out what users are up to; None: nobody asks.
    """
    scout = CatalogScout(retrieval, settings.catalog_refresh_s)
    items = ItemCache(settings.item_cache_entries, settings.item_cache_age_s)
    understanding = Understanding(users, encoder, retrieval, items, scout, intents)
    limits = ListLimits(settings.max_candidates, settings.max_list_length)
    required = frozenset(SourceKind[name.upper()] for name in settings.required_sources)
    store = ListStore(settings.list_store_bytes, settings.list_lifetime_s)

    def recommender(
        who: Understands, sources: list[Source], bundle_of: BundleOf, needed: frozenset[SourceKind]
    ) -> Recommender:
        return Recommender(who, sources, bundle_of, needed, encoder, retrieval, statistics, limits, executor, rules_of)

    def lists(of: Recommender) -> ListServer:
        return ListServer(of, store, users, retrieval, statistics, signer, executor)

    of_shelves = ServingBundle(BUILTIN, BuiltinScorer(shelf_weights))
    main = recommender(understanding, list_sources(settings, statistics), bundle_of, required)
    shelf = recommender(
        ShelfUnderstanding(understanding), shelf_sources(settings, statistics), lambda _: of_shelves, frozenset()
    )
    reranker = Reranker(main, understanding, retrieval, executor)
    return Serving(main, lists(main), lists(shelf), reranker, scout, signer, retrieval, store)


def list_sources(settings: RankingSettings, statistics: Statistics) -> list[Source]:
    """Every source of a list. A new one is a file in `sources/` and a line here."""
    return [
        QuerySource(settings.query_candidates),
        ProfileSource(settings.profile_candidates),
        HistorySource(settings.history_candidates),
        TransitionSource(statistics, settings.transition_candidates),
        SequenceSource(settings.sequence_candidates),
        CollaborativeSource(settings.collaborative_candidates),
        NeighboursSource(statistics, settings.neighbours_candidates),
        FactorsSource(settings.factors_candidates),
        CommunitySource(settings.community_candidates),
        PopularSource(statistics, settings.popular_candidates),
        FreshSource(settings.fresh_candidates, settings.fresh_window_days * 86_400.0),
        CatalogSource(settings.catalog_candidates),
        ExplorationSource(settings.exploration_candidates),
    ]


def shelf_sources(settings: RankingSettings, statistics: Statistics) -> list[Source]:
    """Every source of SimilarItems."""
    return [
        SimilarSource(settings.history_candidates),
        TransitionSource(statistics, settings.transition_candidates),
    ]
