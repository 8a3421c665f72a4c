"""`python -m benchmarks run NAME [--json FILE]`: measures, prints, and writes benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine

NAMES = (
    "encoder",
    "bilingual_encoder",
    "classify",
    "retrieval",
    "ranking",
    "relevance",
    "growth",
    "end_to_end",
    "overload",
    "soak",
)


def main() -> int:
    """Runs one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure one part")
    run.add_argument("name", choices=NAMES)
    run.add_argument("--json", type=Path, help="where to write the result; default benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "name": arguments.name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "commit": machine.commit(),
    }
    # Imported by name: a benchmark brings in what it measures, and only that.
    measured = importlib.import_module(f"benchmarks.{arguments.name}").run()
    result["ratios"] = measured.pop("ratios")
    result["figures"] = measured.pop("figures")
    result |= measured
    path = arguments.json or Path(__file__).parent / "results" / f"{arguments.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    json.dump({"ratios": result["ratios"], "figures": result["figures"]}, sys.stdout, indent=2, ensure_ascii=False)
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
