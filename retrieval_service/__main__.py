"""`python -m retrieval_service --data-dir DIR --encoder-address HOST:PORT`: runs the retrieval service."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported

import sys

from retrieval_service.service import RetrievalService
from retrieval_service.settings import RetrievalSettings
from service_runtime.server import run_service
from service_runtime.settings import load_settings


def main() -> None:
    """Reads the settings and runs the service until it is told to stop."""
    settings = load_settings(RetrievalSettings, sys.argv[1:])
    try:
        service = RetrievalService(settings)
    except OSError as error:
        raise SystemExit(f"cannot start: {error}") from error
    run_service(lambda: service, settings)
    if service.failed:
        sys.exit(1)  # whoever supervises us starts a successor, which replays the store


if __name__ == "__main__":
    main()
