"""`zhiyin model export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zhiyin_cli.model_source import export
from zhiyin_cli.terminal import out, readable_failures

model_app = typer.Typer(help="Models for the encoder.", no_args_is_help=True)


class Precision(StrEnum):
    """Precisions of an exported graph."""

    fp32 = "fp32"
    fp16 = "fp16"


@model_app.callback()
def _models() -> None:
    """Models for the encoder."""


@model_app.command("export")
def export_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint: a folder, an installed package or a hub id.")
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="The model directory to write.")],
    precision: Annotated[Precision, typer.Option("--precision", help="fp16 is for GPUs.")] = Precision.fp32,
) -> None:
    """Export a Hugging Face encoder to a model directory: ONNX, pooling inside, checked against PyTorch."""
    with readable_failures():
        out.print(f"wrote {export(source, out_dir, precision.value)}", markup=False)
