"""How figures are put."""

from __future__ import annotations


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def milliseconds(values: list[float]) -> str:
    return f"p50 {quantile(values, 0.5) * 1e3:6.2f} ms   p99 {quantile(values, 0.99) * 1e3:6.2f} ms"


def say(line: str) -> None:
    """At once, also into a pipe: the whole takes minutes."""
    print(line, flush=True)
