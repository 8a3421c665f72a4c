"""What a PromQL expression asks for: metrics with the labels it selects by, and the labels it groups by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import promql_parser


@dataclass
class Asked:
    """Of one expression."""

    selected: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)

    @property
    def metrics(self) -> set[str]:
        return {name for name, _ in self.selected}


def asked_by(expression: str) -> Asked:
    """Raises ValueError where the expression is none. Grafana's own variables get values first."""
    found = Asked()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.selected.append((node.name or "", frozenset(each.name for each in node.matchers.matchers)))
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.grouped.update(node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            found.grouped.update(matching.labels if matching is not None else ())
            found.grouped.update(node.modifier.group_labels or ())
        return True

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), visit)
    return found
