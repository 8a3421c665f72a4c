"""docs/metrics.md and what the three running services export, in both directions."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.stack import SERVICES, Stack, free_ports, running_stack
from encoder_service import metrics as encoder_metrics
from ranking_service import metrics as ranking_metrics
from ranking_service.scraped_metrics import GAUGES as RANKING_GAUGES
from ranking_service.served_lists import log_metrics
from ranking_service.users import user_metrics
from retrieval_service import metrics as retrieval_metrics
from retrieval_service.scraped_metrics import GAUGES as RETRIEVAL_GAUGES
from service_runtime import rpc_metrics, telemetry
from tests.observability.metrics_page import listed_metrics
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

_USER, _PROFILE, _TITLE = "user-whose-id-stays-here", "astronomy above the mountains", "Stars over the desert"
_OF_HISTOGRAMS = {"le"}


@pytest.fixture(scope="module")
def scrapes(minilm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """What each service says after it was used: lists, events, an error."""
    ports = dict(zip(SERVICES, free_ports(3), strict=True))
    flags = [word for name, port in ports.items() for word in (f"--{name}-metrics-port", str(port))]
    with running_stack(tmp_path_factory.mktemp("metrics"), str(minilm_model_dir), *flags) as stack:
        _use(stack)
        yield {name: _scrape(port) for name, port in ports.items()}


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _use(stack: Stack) -> None:
    with (
        grpc.insecure_channel(stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(stack.ranking_address) as to_ranking,
    ):
        catalogue, recommender = RetrievalServiceStub(to_retrieval), RankingServiceStub(to_ranking)
        items = [Item(id=f"item-{n}", title=f"{_TITLE} {n}", categories=["films"]) for n in range(12)]
        catalogue.UpsertItems(retrieval.UpsertItemsRequest(catalog="default", items=items), timeout=60)
        users = [ranking.User(id=_USER, profile=_PROFILE)]
        recommender.UpsertUsers(ranking.UpsertUsersRequest(catalog="default", users=users), timeout=30)
        event = ranking.Event(user_id=_USER, type=ranking.EVENT_TYPE_LIKE, item_id="item-1")
        recommender.RecordEvents(ranking.RecordEventsRequest(catalog="default", events=[event]), timeout=30)
        request = ranking.RecommendRequest(catalog="default", user_id=_USER, page_size=5, exploration=0.2)
        answer = recommender.Recommend(request, timeout=30)
        assert len(answer.items) == 5
        with pytest.raises(grpc.RpcError):
            recommender.Recommend(ranking.RecommendRequest(catalog="no-such", user_id=_USER), timeout=30)


def _families(text: str) -> dict[str, Metric]:
    """By the name of the page. Counters end in _total there; when they were made is no metric of its own."""
    found = {f"{f.name}_total" if f.type == "counter" else f.name: f for f in text_string_to_metric_families(text)}
    return {name: family for name, family in found.items() if not name.endswith("_created")}


@pytest.mark.parametrize("service", SERVICES)
def test_the_page_lists_exactly_what_the_service_exports(scrapes: Mapping[str, str], service: str) -> None:
    exported = {name: family.type for name, family in _families(scrapes[service]).items()}
    assert exported == {each.name: each.kind for each in listed_metrics() if service in each.services}


@pytest.mark.parametrize("service", SERVICES)
def test_labels_are_those_of_the_page(scrapes: Mapping[str, str], service: str) -> None:
    listed = {each.name: each.labels for each in listed_metrics()}
    compared = 0
    for name, family in _families(scrapes[service]).items():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                assert set(sample.labels) - _OF_HISTOGRAMS == listed[name], sample
                compared += 1
    assert compared > 50


@pytest.mark.parametrize("service", SERVICES)
def test_no_metric_holds_a_user_id_an_item_id_or_a_text(scrapes: Mapping[str, str], service: str) -> None:
    for secret in (_USER, _PROFILE, _TITLE, "item-1"):
        assert secret not in scrapes[service]


def _value(text: str, name: str, **labels: str) -> float:
    found = [s for f in _families(text).values() for s in f.samples if s.name == name and s.labels == labels]
    assert len(found) == 1, (name, labels)
    return float(found[0].value)


def test_the_metrics_tell_what_was_done(scrapes: Mapping[str, str]) -> None:
    items, lists = scrapes["retrieval"], scrapes["ranking"]
    assert _value(items, "zhiyin_retrieval_items", catalog="default") == 12
    assert _value(items, "zhiyin_retrieval_index_vectors", catalog="default", space="semantic", version="1") == 12
    written = _value(items, "zhiyin_retrieval_sequence", catalog="default")
    assert written == _value(items, "zhiyin_retrieval_applied_sequence", catalog="default") > 0
    assert _value(items, "zhiyin_retrieval_data_free_bytes") > 0
    assert _value(lists, "zhiyin_ranking_lists_total", method="Recommend", degraded="false") == 1
    assert 0 < _value(lists, "zhiyin_ranking_list_variety_sum") < 1
    assert _value(lists, "zhiyin_ranking_event_lag_seconds_count") == 1
    assert _value(lists, "zhiyin_ranking_event_lag_seconds_sum") < 30
    assert _value(lists, "zhiyin_ranking_served_items_total", source="exploration") == 1
    folded = _value(lists, "zhiyin_ranking_folded_sequence", catalog="default")
    assert folded == _value(lists, "zhiyin_ranking_log_sequence", catalog="default") > 0
    recommend = "/zhiyin.ranking.v1.RankingService/Recommend"
    assert _value(lists, "zhiyin_rpc_handled_total", method=recommend, code="OK") == 1
    assert _value(lists, "zhiyin_rpc_errors_total", method=recommend, reason="CATALOG_NOT_FOUND") == 1
    assert _value(scrapes["encoder"], "zhiyin_encoder_batch_fill_ratio_count") > 0
    assert _value(scrapes["encoder"], "zhiyin_encoder_queue_limit_tokens") > 512


def test_labels_of_metrics_without_a_value_yet_are_those_of_the_page_too() -> None:
    declared = {spec.name: set(spec.labels) for spec in (*RETRIEVAL_GAUGES, *RANKING_GAUGES)}
    modules = (encoder_metrics, retrieval_metrics, ranking_metrics, user_metrics, log_metrics, rpc_metrics, telemetry)
    for module in modules:
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase) and not metric._labelvalues:
                described = next(iter(metric.describe()))
                name = f"{described.name}_total" if described.type == "counter" else described.name
                declared[name] = set(metric._labelnames)
    of_processes = ("process_", "python_")
    assert declared == {each.name: each.labels for each in listed_metrics() if not each.name.startswith(of_processes)}
