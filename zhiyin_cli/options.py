"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RetrievalAddress = Annotated[
    str,
    typer.Option("--retrieval-address", envvar="ZHIYIN_RETRIEVAL_ADDRESS", help="Address of the retrieval service."),
]
RankingAddress = Annotated[
    str, typer.Option("--ranking-address", envvar="ZHIYIN_RANKING_ADDRESS", help="Address of the ranking service.")
]
EncoderAddress = Annotated[
    str, typer.Option("--encoder-address", envvar="ZHIYIN_ENCODER_ADDRESS", help="Address of the encoder service.")
]
Catalog = Annotated[str, typer.Option("--catalog", envvar="ZHIYIN_CATALOG", help="The catalogue.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response message in proto3 JSON.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Deadline of the call in seconds.")]
