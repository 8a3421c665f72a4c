"""Label sets seen lately, fitted: a caller asks with the same labels again and again."""

from __future__ import annotations

from collections import OrderedDict

from encoder_service.classification import LabelClassifier


class ClassifierCache:
    """Least recently used goes first. For one thread.

    Args:
        max_bytes: Bound on the classifiers' arrays; 0 switches the cache off.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._fitted: OrderedDict[bytes, LabelClassifier] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._fitted)

    def get(self, key: bytes) -> LabelClassifier | None:
        """The classifier of a label set, which becomes the most recent."""
        classifier = self._fitted.get(key)
        if classifier is not None:
            self._fitted.move_to_end(key)
        return classifier

    def put(self, key: bytes, classifier: LabelClassifier) -> None:
        """Keeps a classifier and drops the oldest that no longer fit."""
        before = self._fitted.pop(key, None)
        self.bytes += classifier.nbytes - (before.nbytes if before is not None else 0)
        self._fitted[key] = classifier
        while self.bytes > self._max_bytes:
            _, oldest = self._fitted.popitem(last=False)
            self.bytes -= oldest.nbytes
