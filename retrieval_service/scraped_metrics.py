"""What Prometheus is told of every catalogue and every index, read when it asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrieval_service.catalog_registry import CatalogRegistry
from retrieval_service.index_host import IndexHost
from retrieval_service.item_store import ItemStore
from service_runtime.scraped_gauges import GaugeSpec, Reading, ScrapedGauges, free_bytes

_CATALOG = ("catalog",)
_INDEX = ("catalog", "space", "version")

FREE = GaugeSpec("zhiyin_retrieval_data_free_bytes", "Room left on the disk of the data folder.")
ITEMS = GaugeSpec("zhiyin_retrieval_items", "Items of a catalogue.", _CATALOG)
SEQUENCE = GaugeSpec("zhiyin_retrieval_sequence", "Last write of a catalogue in the store.", _CATALOG)
APPLIED = GaugeSpec("zhiyin_retrieval_applied_sequence", "Last write of a catalogue that searches see.", _CATALOG)
VECTORS = GaugeSpec("zhiyin_retrieval_index_vectors", "Vectors of an index.", _INDEX)
TOMBSTONES = GaugeSpec("zhiyin_retrieval_index_tombstones", "Dead rows of an index, until it is rebuilt.", _INDEX)
DELTA = GaugeSpec("zhiyin_retrieval_index_delta_rows", "Rows compared exactly until the graph has them.", _INDEX)
UNSAVED = GaugeSpec("zhiyin_retrieval_index_unsaved_vectors", "Vectors changed since the last snapshot.", _INDEX)
RECALL = GaugeSpec("zhiyin_retrieval_index_recall_ratio", "Recall@10 of the graph in the last snapshot.", _INDEX)
SNAPSHOT_TIME = GaugeSpec(
    "zhiyin_retrieval_snapshot_created_timestamp_seconds", "When the last snapshot of an index was made.", _INDEX
)
GAUGES = (FREE, ITEMS, SEQUENCE, APPLIED, VECTORS, TOMBSTONES, DELTA, UNSAVED, RECALL, SNAPSHOT_TIME)


def retrieval_gauges(store: ItemStore, registry: CatalogRegistry, host: IndexHost, data_dir: Path) -> ScrapedGauges:
    """Everything above, of one running service."""

    def of_disk() -> Iterator[Reading]:
        yield FREE, (), free_bytes(data_dir)

    def of_catalogs() -> Iterator[Reading]:
        for state in registry:
            name = state.row.name
            yield ITEMS, (name,), len(state.directory)
            yield APPLIED, (name,), state.directory.sequence

    def of_store() -> Iterator[Reading]:
        with store.reading() as connection:
            sequences = store.sequences(connection)
        for name, sequence in sequences.items():
            yield SEQUENCE, (name,), sequence

    # The store first: read after it, what searches see is not behind for the time between.
    return ScrapedGauges(GAUGES, of_disk, of_store, of_catalogs, lambda: _of_indexes(registry, host))


def _of_indexes(registry: CatalogRegistry, host: IndexHost) -> Iterator[Reading]:
    for key, _ in host.known():
        state = registry.find(key.catalog_id)
        if state is None:
            continue
        figures, labels = host.figures(key), (state.row.name, key.space, str(key.version))
        yield VECTORS, labels, figures.live
        yield TOMBSTONES, labels, figures.tombstones
        yield DELTA, labels, figures.graph_backlog
        yield UNSAVED, labels, figures.changed_since_snapshot
        if figures.snapshot is not None:
            yield SNAPSHOT_TIME, labels, figures.snapshot.created_at
            if figures.snapshot.recall is not None:
                yield RECALL, labels, figures.snapshot.recall
