"""`zhiyin recommend`, `zhiyin similar`, `zhiyin stats`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb2
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as encoder_grpc
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_ENCODER, DEFAULT_RANKING, DEFAULT_RETRIEVAL, connect
from zhiyin_cli.result_tables import degraded_lines, figures_table, recommendation_table
from zhiyin_cli.terminal import CommandFailed, err, out, readable_failures


class Method(StrEnum):
    """Names of the diversity methods on the command line."""

    msd = "msd"
    mmr = "mmr"
    dpp = "dpp"
    none = "none"


_METHODS = {
    Method.msd: ranking_pb2.DIVERSITY_METHOD_MSD,
    Method.mmr: ranking_pb2.DIVERSITY_METHOD_MMR,
    Method.dpp: ranking_pb2.DIVERSITY_METHOD_DPP,
    Method.none: ranking_pb2.DIVERSITY_METHOD_NONE,
}

_Limit = Annotated[int, typer.Option("--limit", min=1, max=100, help="Items wanted.")]
_Diversity = Annotated[
    float | None, typer.Option("--diversity", min=0.0, max=1.0, help="0: the most relevant; 1: the most varied.")
]
_Method = Annotated[Method | None, typer.Option("--method", help="How to diversify.")]
_Locale = Annotated[str, typer.Option("--locale", help="Language of the reasons, such as zh or en.")]


def recommend(
    ctx: typer.Context,
    user: Annotated[str | None, typer.Option("--user", help="A user's id.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Somebody described in words; nothing is stored.")
    ] = None,
    query: Annotated[str, typer.Option("--query", help="What is looked for right now.")] = "",
    limit: _Limit = 10,
    diversity: _Diversity = None,
    method: _Method = None,
    locale: _Locale = "",
    as_json: options.AsJson = False,
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
    timeout: options.Timeout = 10.0,
) -> None:
    """Recommend items to a user, to somebody described in words, or to nobody in particular."""
    with readable_failures(address):
        if user is not None and profile is not None:
            raise CommandFailed("give --user or --profile, not both")
        request = ranking_pb2.RecommendRequest(catalog=catalog, query_text=query, page_size=limit)
        if user is not None:
            request.user_id = user
        elif profile is not None:
            request.anonymous.text = profile
        if diversity is not None:
            request.diversity = diversity
        if method is not None:
            request.diversity_method = _METHODS[method]
        if locale:
            request.context.locale = locale
        with connect(address, ctx.obj) as channel:
            response = ranking_grpc.RankingServiceStub(channel).Recommend(request, timeout=timeout)
        subject = f"user {user}" if user is not None else f"«{profile}»" if profile else "nobody in particular"
        _show(response, as_json, f"For {subject}" + (f", looking for «{query}»" if query else ""))


def similar(
    ctx: typer.Context,
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM_ID...", help="Items to be like.")],
    limit: _Limit = 10,
    diversity: _Diversity = None,
    locale: _Locale = "",
    as_json: options.AsJson = False,
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
    timeout: options.Timeout = 10.0,
) -> None:
    """Show items like the given ones."""
    with readable_failures(address):
        request = ranking_pb2.SimilarItemsRequest(catalog=catalog, item_ids=item_ids, page_size=limit, locale=locale)
        if diversity is not None:
            request.diversity = diversity
        with connect(address, ctx.obj) as channel:
            response = ranking_grpc.RankingServiceStub(channel).SimilarItems(request, timeout=timeout)
        _show(response, as_json, f"Like {', '.join(item_ids)}")


def stats(
    ctx: typer.Context,
    as_json: options.AsJson = False,
    catalog: options.Catalog = "default",
    retrieval_address: options.RetrievalAddress = DEFAULT_RETRIEVAL,
    encoder_address: options.EncoderAddress = DEFAULT_ENCODER,
    timeout: options.Timeout = 10.0,
) -> None:
    """Show figures about a catalogue and the model that reads it."""
    with readable_failures(retrieval_address), connect(retrieval_address, ctx.obj) as channel:
        request = retrieval_pb2.GetCatalogStatsRequest(catalog=catalog)
        catalog_stats = retrieval_grpc.RetrievalServiceStub(channel).GetCatalogStats(request, timeout=timeout)
    with readable_failures(encoder_address), connect(encoder_address, ctx.obj) as channel:
        model = encoder_grpc.EncoderServiceStub(channel).GetModelInfo(
            encoder_pb2.GetModelInfoRequest(), timeout=timeout
        )
    if as_json:
        out.print_json(_json(catalog_stats))
        return
    out.print(figures_table(f"Catalogue {catalog}", _figures(catalog_stats)))
    out.print(figures_table("Encoder", _figures(model)))


def _show(
    response: ranking_pb2.RecommendResponse | ranking_pb2.SimilarItemsResponse, as_json: bool, title: str
) -> None:
    if as_json:
        out.print_json(_json(response))
        return
    if response.items:
        out.print(recommendation_table(title, response.items, width=out.width))
    else:
        out.print("nothing to recommend: the catalogue is empty, or everything in it was seen or filtered")
    for line in degraded_lines(response.degraded):
        err.print(line, style="yellow", markup=False)


def _json(message: Message) -> str:
    return json_format.MessageToJson(message, ensure_ascii=False)


def _figures(message: Message) -> dict[str, str]:
    """The scalar fields of a message by their names, zeros included."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    flat: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": str(each) for inner, each in value.items()}
        else:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
