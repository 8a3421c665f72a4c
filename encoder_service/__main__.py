"""`python -m encoder_service --model-dir DIR`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported: its threads fight with the model's
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the cores belong to the model

import sys

from encoder_service.model_directory import ModelDirectoryError
from encoder_service.onnx_backend import BackendError
from encoder_service.parity import ParityError
from encoder_service.service import EncoderService
from encoder_service.settings import EncoderSettings
from service_runtime.server import run_service
from service_runtime.settings import load_settings


def main() -> None:
    """Serves until a signal."""
    settings = load_settings(EncoderSettings, sys.argv[1:])
    try:
        run_service(lambda: EncoderService(settings), settings)
    except (ModelDirectoryError, BackendError, ParityError) as error:
        sys.exit(f"encoder: {error}")


if __name__ == "__main__":
    main()
