"""How figures are put."""

from __future__ import annotations


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def milliseconds(values: list[float]) -> str:
    return f"p50 {quantile(values, 0.5) * 1e3:6.2f} ms   p99 {quantile(values, 0.99) * 1e3:6.2f} ms"


def say(line: str) -> None:
    """At once, also into a pipe: the whole takes minutes."""
    print(line, flush=True)


def bar(what: str, value: float, limit: float, unit: str) -> bool:
    """Says a figure beside what it is held to; False where it is missed."""
    kept = value < limit
    say(f"bar: {what} {value:.2f} {unit}, under {limit:g} {unit}: {'kept' if kept else 'MISSED'}")
    return kept
