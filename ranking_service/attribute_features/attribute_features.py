"""The columns of a spec for the candidates of a list: what they share with what the user liked, and who asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranking_service.attribute_features.asker import Asker, asker_of
from ranking_service.attribute_features.feature_spec import FeatureSpec, Lift, Side
from ranking_service.attribute_features.item_facts import Facts, ItemFacts, codes_of, language_code
from ranking_service.candidate import Doubles, Flags, Floats, Pool

if TYPE_CHECKING:  # a taste holds what reads it
    from ranking_service.taste import Taste

Places = NDArray[np.intp]


class AttributeFeatures:
    """A spec ready to be applied. Thread-safe.

    Attributes:
        items: Makes the rows of items that `of` takes.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec, self.items = spec, ItemFacts(spec)
        names = spec.all_names
        self._kept = np.array([names.index(name) for name in spec.names], np.intp)
        widths = [entry.width for entry in spec.words]
        self._starts = np.cumsum([0, *widths])[:-1].astype(np.intp)
        self._slices = [slice(start, start + width) for start, width in zip(self._starts, widths, strict=True)]
        known = {key: value for entry in spec.words for key, value in codes_of(entry.name, entry.events).items()}
        self._vocabulary = np.array(sorted(known), np.float64)
        self._events = np.log1p([known[key] for key in self._vocabulary.tolist()]).astype(np.float64)
        self._lifts = [self._by_value(lift) for lift in spec.lifts]
        self._fill = np.array([number.fill for number in spec.numbers])

    def of_pool(self, taste: Taste, pool: Pool, rows: Places) -> Floats:
        """The columns of some candidates of a list; NaN where the items do not come with what is read of them."""
        if taste.attributes is not self:
            return np.full((len(rows), len(self._kept)), np.nan, np.float32)
        known = taste.known_items.items()
        liked = {item_id: item.facts for item_id, item in known if item.facts_key == self.items.key}
        return self.of(asker_of(taste), liked, [self.items.row(pool.items[row]) for row in rows.tolist()])

    def of(self, asker: Asker, liked: Mapping[str, bytes], candidates: Sequence[bytes]) -> Floats:
        """The columns `spec.names`, shape (n, columns); NaN where something is unknown.

        Args:
            asker: Who asks.
            liked: Rows of the items that they liked, as far as they are at hand.
            candidates: Rows of n candidates.
        """
        shown = self.items.joined(candidates)
        likes = [(liked[item_id], weight) for item_id, weight in asker.liked if item_id in liked]
        weights = np.array([weight for _, weight in likes], np.float64)
        theirs = self.items.joined([row for row, _ in likes])
        counts = self._by_field(shown.words != 0)
        found = _find(self._vocabulary, shown.words)
        columns = [  # as in `FeatureSpec.all_names`
            self._shares(theirs, weights, shown, counts),
            self._latest(theirs, shown, counts),
            self._seen(*found, counts),
            *self._of_numbers(theirs, weights, shown),
            self._of_sides(asker, len(candidates)),
            self._lifted(asker, *found, counts),
            self._of_moment(asker, shown),
        ]
        return np.hstack(columns)[:, self._kept].astype(np.float32)

    def _shares(self, theirs: Facts, weights: Doubles, shown: Facts, counts: Doubles) -> Doubles:
        """Of each field, the share of the likes' weight that has a word of the candidate, the mean over its words."""
        said = theirs.words != 0
        totals = weights @ (self._by_field(said) > 0)
        known, places = np.unique(theirs.words[said], return_inverse=True)
        heard = np.bincount(places, np.broadcast_to(weights[:, None], said.shape)[said], len(known))
        found, there = _find(known, shown.words)
        values = np.where(there, np.append(heard, 0.0)[found], 0.0)
        return self._by_field(values) / _or_nan(counts) / _or_nan(totals)

    def _latest(self, theirs: Facts, shown: Facts, counts: Doubles) -> Doubles:
        """Of each field, the share of the candidate's words that the item liked last has; unknown where it has none."""
        latest = theirs.words[:1]
        if not len(latest):
            return np.full(counts.shape, np.nan)
        _, there = _find(np.unique(latest), np.where(shown.words != 0, shown.words, np.nan))
        said = (self._by_field(latest != 0) > 0).astype(np.float64)
        return self._by_field(there) / _or_nan(counts) / _or_nan(said)

    def _seen(self, found: Places, there: Flags, counts: Doubles) -> Doubles:
        """How much training saw of each field's words, the mean of their logarithms."""
        seen = np.where(there, np.append(self._events, 0.0)[found], 0.0)
        return self._by_field(seen) / _or_nan(counts)

    def _lifted(self, asker: Asker, found: Places, there: Flags, counts: Doubles) -> Doubles:
        """Each lift, the mean over the words of its field."""
        out = np.full((len(counts), len(self._lifts)), np.nan)
        for column, (side, field, by_value) in enumerate(self._lifts):
            tables = [by_value[word] for word in side.words(asker.side(side.name)) if word in by_value]
            if tables:
                own = self._slices[field]
                values = np.mean(tables, axis=0)[found[:, own]] * there[:, own]
                out[:, column] = values.sum(axis=1) / _or_nan(counts[:, field])
        return out

    def _of_numbers(self, theirs: Facts, weights: Doubles, shown: Facts) -> list[Doubles]:
        """Each number, whether it is there, and how far it is from the mean of what was liked."""
        given = ~np.isnan(shown.numbers)
        values = np.where(given, shown.numbers, self._fill)
        there = ~np.isnan(theirs.numbers)
        mean = (weights @ np.where(there, theirs.numbers, 0.0)) / _or_nan(weights @ there)
        return [values, given.astype(np.float64), np.abs(values - mean)]

    def _of_sides(self, asker: Asker, count: int) -> Doubles:
        values = np.array([side.value(asker.side(side.name)) for side in self.spec.sides])
        return np.broadcast_to(values, (count, len(values)))

    def _of_moment(self, asker: Asker, shown: Facts) -> Doubles:
        moment, language = asker.moment, language_code(asker.locale)
        match = np.where(shown.language != 0, shown.language == language, np.nan) if language else np.nan
        columns = np.empty((len(shown.language), 3))
        columns[:, 0], columns[:, 1], columns[:, 2] = moment.hour, moment.weekday(), match
        return columns

    def _by_field(self, values: Flags | Doubles) -> Doubles:
        """Sums over the words of each field, shape (n, fields)."""
        if not len(self._starts):
            return np.zeros((len(values), 0))
        return np.add.reduceat(values.astype(np.float64, copy=False), self._starts, axis=1)

    def _by_value(self, lift: Lift) -> tuple[Side, int, dict[str, Doubles]]:
        """The side and the field of a lift and, by the side's value, the lift of each word of the vocabulary."""
        side = next(side for side in self.spec.sides if side.name == lift.side)
        field = next(place for place, entry in enumerate(self.spec.words) if entry.name == lift.field)
        tables = {}
        for value, words in lift.table.items():
            by_code = codes_of(lift.field, words)
            # One more for what is not in the vocabulary.
            tables[value] = np.array([*(by_code.get(key, 0.0) for key in self._vocabulary.tolist()), 0.0])
        return side, field, tables


def _find(known: Doubles, words: Doubles) -> tuple[Places, Flags]:
    """Where words stand in a sorted vocabulary, and whether they do; those that do not point behind its end."""
    places = np.searchsorted(known, words)
    there = np.append(known, np.nan)[places] == words
    return np.where(there, places, len(known)), there


def _or_nan(divisor: Doubles) -> Doubles:
    """What can be divided by: NaN for 0."""
    return np.where(divisor > 0, divisor, np.nan)
