"""Calls about items: retrieval."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from zhiyin.common.v1 import filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client import methods
from zhiyin_client.searches import Queries, SearchResult, queries_of, result_of
from zhiyin_client.sync.calls import Calls
from zhiyin_client.values import item_mask, mask


class ItemCalls(Calls):
    """Items of a catalogue. All raise ZhiyinError."""

    def create_catalog(
        self, *, display_name: str = "", max_items: int = 0, timeout: float | None = None
    ) -> retrieval.Catalog:
        """Makes the client's catalogue; the same settings again are no error."""
        wanted = retrieval.Catalog(name=self.catalog, display_name=display_name, max_items=max_items)
        request = retrieval.CreateCatalogRequest(catalog=wanted)
        return (self._call(methods.CREATE_CATALOG, request, timeout)).catalog

    def drop_catalog(self, *, timeout: float | None = None) -> int:
        """Drops the client's catalogue with all its items, for good; says how many. `default` is emptied and stays."""
        request = retrieval.DropCatalogRequest(catalog=self.catalog)
        return (self._call(methods.DROP_CATALOG, request, timeout)).deleted_item_count

    def upsert_items(
        self,
        items: Iterable[item_pb2.Item],
        *,
        update_mask: Iterable[str] | None = None,
        check_revision: bool = False,
        validate_only: bool = False,
        request_id: str = "",
        timeout: float | None = None,
    ) -> retrieval.UpsertItemsResponse:
        """Writes a batch: all or none, durable and searchable when answered. For many items: `import_items`.

        Args:
            items: With different ids.
            update_mask: Names of the fields that change; None: items are replaced whole.
            check_revision: Whether each item's `revision` must be that of the stored one, else Conflict.
            validate_only: Check everything, write nothing.
            request_id: Of this write. With `check_revision` the client makes one, so that a repeat of a write whose
                answer was lost does not conflict with itself.
            timeout: Seconds; None: the client's.
        """
        request = retrieval.UpsertItemsRequest(
            catalog=self.catalog,
            items=items,
            update_mask=mask(update_mask),
            check_revision=check_revision,
            validate_only=validate_only,
            request_id=request_id or (uuid.uuid4().hex if check_revision else ""),
        )
        return self._call(methods.UPSERT_ITEMS, request, timeout)

    def delete_items(self, item_ids: Iterable[str], *, timeout: float | None = None) -> retrieval.DeleteItemsResponse:
        """Deletes items: all or none; unknown ids come back in `missing_item_ids`."""
        # With an id of the request a repeat gets the first answer again, with what was deleted then.
        request = retrieval.DeleteItemsRequest(catalog=self.catalog, item_ids=item_ids, request_id=uuid.uuid4().hex)
        return self._call(methods.DELETE_ITEMS, request, timeout)

    def get_items(
        self, item_ids: Iterable[str], *, read_mask: Iterable[str] | None = None, timeout: float | None = None
    ) -> list[item_pb2.Item]:
        """The items that exist, in the order of their ids in the request; at most 1,000."""
        request = retrieval.GetItemsRequest(catalog=self.catalog, item_ids=item_ids, read_mask=item_mask(read_mask))
        return list((self._call(methods.GET_ITEMS, request, timeout)).items)

    def list_items(
        self,
        *,
        filter: filter_pb2.Filter | None = None,
        read_mask: Iterable[str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[item_pb2.Item]:
        """All items in the order of their ids, fetched page by page; `timeout` is for each page."""
        request = retrieval.ListItemsRequest(
            catalog=self.catalog, page_size=page_size, filter=filter, read_mask=item_mask(read_mask)
        )
        while True:
            page = self._call(methods.LIST_ITEMS, request, timeout)
            yield from page.items
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def search(
        self,
        queries: Queries,
        *,
        limit: int = 0,
        filter: filter_pb2.Filter | None = None,
        exclude_item_ids: Iterable[str] = (),
        read_mask: Iterable[str] | None = None,
        vectors_space: str = "",
        min_sequence: int | None = None,
        include_unavailable: bool = False,
        timeout: float | None = None,
    ) -> SearchResult:
        """Answers several queries over one state of the catalogue.

        Args:
            queries: A text, a vector of shape (dimensions,), vectors of shape (queries, dimensions), a Query or a
                sequence of them; at most 32.
            limit: Hits of each query that has no limit of its own, 1 to 1,000; 0: 10.
            filter: Holds for every query.
            exclude_item_ids: Must not come back.
            read_mask: Fields of items to fill besides the id, such as `title`; None: their ids only.
            vectors_space: Also send the vectors of items and queries in this space, such as `semantic`.
            min_sequence: Only from a state that has seen this write; a session fills it in.
            include_unavailable: Also hidden items.
            timeout: Seconds; None: the client's.

        Raises:
            ValueError: A query has no input, or more than one.
        """
        request = retrieval.SearchRequest(
            catalog=self.catalog,
            queries=queries_of(queries, limit),
            filter=filter,
            exclude_item_ids=exclude_item_ids,
            read_mask=item_mask(read_mask),
            vectors_space=vectors_space,
            min_sequence=min_sequence,
            include_unavailable=include_unavailable,
        )
        return result_of(self._call(methods.SEARCH, request, timeout))
