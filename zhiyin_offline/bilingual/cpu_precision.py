"""Which precision this CPU computes fast and right."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

BilingualPrecision = Literal["fp32", "int8", "int4"]
_CPUINFO = Path("/proc/cpuinfo")
# 8-bit products added up in 32 bits. Without them x86 adds in 16 bits, which overflow.
_VNNI = {"avx512_vnni", "avx_vnni"}


def precision_for_this_cpu(cpuinfo: Path = _CPUINFO) -> BilingualPrecision:
    """`int8` where the CPU says that it has VNNI; `int4`, right everywhere, when it has not or cannot be asked."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "int4"
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    return "int8" if flags & _VNNI else "int4"
