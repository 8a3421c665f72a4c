"""`zhiyin train`: learns a bundle from what users did, and lets it serve.

Training imports LightGBM and SciPy; the other commands start without them.
"""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service_runtime.errors import ZhiyinError
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, DEFAULT_RETRIEVAL, connect
from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model
from zhiyin_cli.terminal import err, fail, out, readable_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from zhiyin.common.v1.item_pb2 import Item
    from zhiyin_offline.training.file_record import Encode
    from zhiyin_offline.training.train import Trained


def train(
    ctx: typer.Context,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="The folder given to `zhiyin up`.")],
    catalog: options.Catalog = "default",
    files: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Learn from the events of these files, as `zhiyin evaluate` takes them, not of the store.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="With --from: as given to `zhiyin up`; reads items that only the files hold.")
    ] = DEFAULT_MODEL,
    item_store_url: Annotated[
        str, typer.Option(envvar="ZHIYIN_RETRIEVAL_STORE_URL", help="Retrieval's database, where it is no file.")
    ] = "",
    user_store_url: Annotated[
        str, typer.Option(envvar="ZHIYIN_RANKING_STORE_URL", help="Ranking's database, where it is no file.")
    ] = "",
    bundles_dir: Annotated[
        Path | None,
        typer.Option(envvar="ZHIYIN_RANKING_BUNDLES_DIR", help="As the ranking service is set. Unset: in the folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    max_cases: Annotated[int, typer.Option(min=10, help="Users learned from at most.")] = 8_000,
    threads: Annotated[int, typer.Option(min=1, help="Of the learned ranker.")] = 1,
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Let the bundle serve when it is no worse than what does.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Let it serve also when it is worse.")] = False,
    sequence: Annotated[
        bool, typer.Option("--sequence/--no-sequence", help="Train a sequence model too; needs the extra `export`.")
    ] = True,
    device: Annotated[str, typer.Option(help="Of the sequence model: cpu, cuda, cuda:1.")] = "cpu",
    address: options.RankingAddress = DEFAULT_RANKING,
    retrieval_address: options.RetrievalAddress = DEFAULT_RETRIEVAL,
) -> None:
    """Learn from the stores, or from files, what shall serve, and let it serve. Beside running services.

    What serves (the weights of the house, one source, learned weights or a learned ranker) is chosen by
    cross-validation; the bundle holds the choice and its evidence.
    """
    try:
        from zhiyin_offline.evaluation.memory_catalog import semantic_space
        from zhiyin_offline.rows.row_errors import ImportFailed
        from zhiyin_offline.training import publishing
        from zhiyin_offline.training.file_record import read_files
        from zhiyin_offline.training.gate import compare_with_serving
        from zhiyin_offline.training.store_record import CatalogUnknown, read_record
        from zhiyin_offline.training.train import train as learn
        from zhiyin_offline.training.training_settings import NothingToLearn, TrainingSettings
        from zhiyin_offline.upkeep.locations import Locations
    except ImportError as exc:
        fail(f"this needs the extra `train` ({exc}): pip install 'zhiyin[cpu,train]'")

    locations = Locations(data_dir, item_store_url, user_store_url)
    folder = (bundles_dir or locations.ranking / "bundles") / catalog
    run_folder = folder / ".training"
    try:
        if files is None:
            record = read_record(locations, catalog)
        else:
            record = read_files(files, locations, catalog, _encoder(model, locations.models, run_folder), _say)
        run_folder.mkdir(parents=True, exist_ok=True)
        with _progress() as progress:
            settings = TrainingSettings(
                max_cases=max_cases,
                seed=seed,
                threads=threads,
                sequence=sequence and _has_torch(),
                device=device,
                run_folder=run_folder,
            )
            trained = learn(record.dataset, record.vectors, record.fingerprint, catalog, settings, progress)
        verdict = compare_with_serving(folder, trained, record.dataset)
    except (CatalogUnknown, ImportFailed, NothingToLearn, OSError) as error:
        fail(str(error))
    except ZhiyinError as error:
        fail(error.message)
    out.print(_contenders(trained))
    if trained.manifest.evidence["chances"]:
        out.print(_chances(trained.manifest.evidence["chances"]), markup=False)
    serve = activate and (force or not verdict.worse)
    with readable_failures(retrieval_address), connect(retrieval_address, ctx.obj) as channel:
        retrieval = retrieval_grpc.RetrievalServiceStub(channel)
        version = 0
        if trained.sequence is not None:
            semantic = semantic_space(record.vectors, record.fingerprint)
            version = publishing.publish_sequence(retrieval, catalog, trained.sequence, semantic, trained.manifest.id)
        manifest = publishing.save(folder, trained, version)
        out.print(f"wrote bundle {manifest.id}: {manifest.evidence['chosen']}; {verdict.text}", markup=False)
        if serve:
            with readable_failures(address), connect(address, ctx.obj) as to_ranking:
                publishing.activate(pb_grpc.RankingServiceStub(to_ranking), catalog, manifest.id)
            out.print(f"{manifest.id} serves catalogue {catalog}", markup=False)
        publishing.retire_old_spaces(retrieval, catalog, folder)
    shutil.rmtree(run_folder, ignore_errors=True)
    if not activate:
        out.print(f"let it serve by: zhiyin bundles activate {manifest.id}", markup=False)
    elif not serve:
        out.print("it does not serve: --force, or `zhiyin bundles activate`, lets it", markup=False)
        raise typer.Exit(3)


def _encoder(model: str, models_dir: Path, cache_dir: Path) -> Encode:
    """Encodes items as the encoder service would; makes the model ready when first asked."""

    def encode(items: Sequence[Item]) -> tuple[NDArray[np.float32], str]:
        from encoder_service.model_directory import ModelDirectoryError
        from encoder_service.onnx_backend import BackendError
        from encoder_service.parity import ParityError
        from zhiyin_offline.evaluation.item_vectors import item_vectors

        try:
            with readable_failures(), _progress() as progress:
                model_dir = ready_model(model, models_dir, _say)
                return item_vectors(items, model_dir, cache_dir, partial(progress, "encoding items"))
        except (ModelDirectoryError, BackendError, ParityError) as error:
            fail(str(error))

    return encode


def _say(message: str) -> None:
    err.print(message, markup=False)


def _has_torch() -> bool:
    if importlib.util.find_spec("torch") is not None:
        return True
    err.print("PyTorch is not installed (extra `export`): no sequence model is trained", markup=False)
    return False


def _contenders(trained: Trained) -> Table:
    from zhiyin_offline.training.differences import standard_error

    table = Table("out of fold", "ndcg@10", "±", "recall@10", "")
    for contender in trained.choice.contenders:
        error = standard_error(contender.ndcg)
        chosen = "serves" if contender is trained.choice.best else ""
        table.add_row(
            contender.name, f"{contender.ndcg.mean():.4f}", f"{error:.4f}", f"{contender.recall.mean():.4f}", chosen
        )
    return table


def _chances(told: Mapping[str, Any]) -> str:
    """How good the chances are that lists would tell, and whether they tell them."""
    if "calibration_error" not in told:
        return f"no chances: {told['why']} ({told['impressions']:,} with a score)"
    return (
        f"chances: calibration error {told['calibration_error']:.4f}, Brier {told['brier']:.4f} (rate of all "
        f"{told['brier_of_rate']:.4f}) on {told['impressions']:,} impressions of {told['users']:,} users set aside; "
        + ("lists tell them" if told["serves"] else "no better than the rate, so lists tell none")
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda step, done, total: bars.update(task, description=step, completed=done, total=total or None)
