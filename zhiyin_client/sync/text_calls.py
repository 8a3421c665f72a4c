"""Calls about texts: the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zhiyin.encoder.v1 import encoder_service_pb2 as encoder
from zhiyin_client import methods
from zhiyin_client.sync.calls import Calls
from zhiyin_client.texts import Embeddings, Role, embed_request, embeddings_of, labels_of


class TextCalls(Calls):
    """Texts to vectors and labels. All raise ZhiyinError."""

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        role: Role = "query",
        float16: bool = False,
        expected_space_fingerprint: str = "",
        timeout: float | None = None,
    ) -> Embeddings:
        """The vectors of a few texts, for somebody who waits.

        Args:
            texts: One or several.
            role: The side they stand on: `query` is looked for, `passage` can be found, `raw` gets no prompt.
            float16: Halves the bytes on the wire; the vectors are float32 all the same.
            expected_space_fingerprint: FailedPrecondition where another model serves.
            timeout: Seconds; None: the client's.
        """
        request = embed_request(texts, role, float16=float16, expected_space_fingerprint=expected_space_fingerprint)
        return embeddings_of(self._call(methods.EMBED, request, timeout))

    def classify(
        self,
        texts: str | Sequence[str],
        labels: Mapping[str, str | Sequence[str]] | Sequence[encoder.Label],
        *,
        min_probability: float | None = None,
        max_labels: int | None = None,
        timeout: float | None = None,
    ) -> encoder.ClassifyResponse:
        """Labels for texts, by the labels' descriptions and, in `Label` messages, examples."""
        request = encoder.ClassifyRequest(
            texts=[texts] if isinstance(texts, str) else texts,
            labels=labels_of(labels),
            min_probability=min_probability,
            max_labels=max_labels,
        )
        return self._call(methods.CLASSIFY, request, timeout)

    def model_info(self, *, timeout: float | None = None) -> encoder.GetModelInfoResponse:
        """Which model serves, and what its vectors may be compared with."""
        return self._call(methods.MODEL_INFO, encoder.GetModelInfoRequest(), timeout)
