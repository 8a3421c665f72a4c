"""`zhiyin train` and `zhiyin bundles`.

Training imports LightGBM and SciPy; the other commands start without them.
"""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service_runtime.errors import ZhiyinError
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, DEFAULT_RETRIEVAL, connect
from zhiyin_cli.terminal import err, fail, out, readable_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zhiyin_offline.training.train import Trained

bundles_app = typer.Typer(help="Model bundles: what `zhiyin train` learned.", no_args_is_help=True)
_TIMEOUT_S = 30.0


def train(
    ctx: typer.Context,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="The folder given to `zhiyin up`.")],
    catalog: options.Catalog = "default",
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
    """Learn from the stores what shall serve, and let it serve. Beside running services.

    What serves (the weights of the house, one source, learned weights or a learned ranker) is chosen by
    cross-validation; the bundle holds the choice and its evidence.
    """
    try:
        from zhiyin_offline.evaluation.memory_catalog import semantic_space
        from zhiyin_offline.training import publishing
        from zhiyin_offline.training.gate import compare_with_serving
        from zhiyin_offline.training.store_record import CatalogUnknown, read_record
        from zhiyin_offline.training.train import NothingToLearn, TrainingSettings
        from zhiyin_offline.training.train import train as learn
        from zhiyin_offline.upkeep.locations import Locations
    except ImportError as exc:
        fail(f"this needs the extra `train` ({exc}): pip install 'zhiyin[cpu,train]'")

    locations = Locations(data_dir, item_store_url, user_store_url)
    folder = (bundles_dir or locations.ranking / "bundles") / catalog
    run_folder = folder / ".training"
    try:
        record = read_record(locations, catalog)
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
        verdict = compare_with_serving(folder, trained)
    except (CatalogUnknown, NothingToLearn, OSError) as error:
        fail(str(error))
    except ZhiyinError as error:
        fail(error.message)
    out.print(_contenders(trained))
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


def _has_torch() -> bool:
    if importlib.util.find_spec("torch") is not None:
        return True
    err.print("PyTorch is not installed (extra `export`): no sequence model is trained", markup=False)
    return False


@bundles_app.command("list")
def list_bundles(
    ctx: typer.Context, catalog: options.Catalog = "default", address: options.RankingAddress = DEFAULT_RANKING
) -> None:
    """List the bundles of a catalogue, newest first."""
    table = Table("bundle", "trained", "ndcg@10", "recall@10", "serves")
    token = ""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        stub = pb_grpc.RankingServiceStub(channel)
        while True:
            request = pb.ListBundlesRequest(catalog=catalog, page_token=token)
            reply = stub.ListBundles(request, timeout=_TIMEOUT_S)
            for bundle in reply.bundles:
                figures = [f"{bundle.metrics[name]:.4f}" if name in bundle.metrics else "-" for name in _SHOWN]
                trained_at = bundle.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
                table.add_row(bundle.id, trained_at, *figures, "yes" if bundle.active else "")
            token = reply.next_page_token
            if not token:
                break
    out.print(table)


@bundles_app.command("activate")
def activate_bundle(
    ctx: typer.Context,
    bundle: Annotated[str, typer.Argument(help="Id of the bundle; `builtin`: none.")],
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
) -> None:
    """Let a bundle serve: a new one, or an older one again. `builtin` goes back to the weights of the house."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        request = pb.ActivateBundleRequest(catalog=catalog, bundle_id=bundle)
        pb_grpc.RankingServiceStub(channel).ActivateBundle(request, timeout=_TIMEOUT_S)
    out.print(f"{bundle} serves catalogue {catalog}", markup=False)


_SHOWN = ("ndcg@10", "recall@10")


def _contenders(trained: Trained) -> Table:
    table = Table("out of fold", "ndcg@10", "±", "recall@10", "")
    for contender in trained.choice.contenders:
        error = float(contender.ndcg.std()) / max(len(contender.ndcg), 1) ** 0.5
        chosen = "serves" if contender is trained.choice.best else ""
        table.add_row(
            contender.name, f"{contender.ndcg.mean():.4f}", f"{error:.4f}", f"{contender.recall.mean():.4f}", chosen
        )
    return table


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda step, done, total: bars.update(task, description=step, completed=done, total=total or None)
