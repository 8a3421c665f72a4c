"""The learned ranker: gradient boosted trees trained with LambdaMART (Burges 2010), applied by LightGBM."""

from __future__ import annotations

import lightgbm

from ranking_service.candidate import Floats


class TreeRanker:
    """Scores rows of features. Thread-safe.

    Args:
        model: As LightGBM writes it.

    Raises:
        ValueError: It is no such model.
    """

    def __init__(self, model: str) -> None:
        try:
            self._booster = lightgbm.Booster(model_str=model)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from None

    @property
    def feature_count(self) -> int:
        """Columns of a row."""
        return int(self._booster.num_feature())

    def score(self, rows: Floats) -> Floats:
        """Higher is better, on a scale of its own; shape (n,). One thread: lists are made beside each other."""
        return self._booster.predict(rows, num_threads=1, predict_disable_shape_check=True).astype("float32")  # type: ignore[union-attr]
