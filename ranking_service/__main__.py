"""`python -m ranking_service`: the ranking service as a process."""

from __future__ import annotations

import os
import sys

# Before numpy is imported: many small products on few cores, where BLAS threads only get into each other's way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from service_runtime.server import run_service
from service_runtime.settings import load_settings


def main() -> None:
    """Reads the settings and serves until told to stop."""
    settings = load_settings(RankingSettings, sys.argv[1:])
    run_service(lambda: RankingService(settings), settings)


if __name__ == "__main__":
    main()
