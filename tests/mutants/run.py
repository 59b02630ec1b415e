"""Run a seeded sample of mutants against the tests, cheapest first, and print the score.

python -m tests.mutants.run --count 300 --seed 1 --bar 95     # within 6 hours on 2 cores
python -m tests.mutants.run --show 20                         # only list them

A mutant that no test notices survives: write the test, or list it in equal.json with the reason why it
changes nothing. Exit code 1 when the score is below the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutate import ROOT, Mutant, sample

EQUAL = Path(__file__).with_name("equal.json")
LINKED = (
    "tests",
    "hw_fakes",
    "docs",
    "config",
    "systemd",
    "pyproject.toml",
    "README.md",
    "Makefile",
)
PYTEST = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "120")
SIM = ("-m", "tests.sim.run")
# Cheapest and most telling first: the first command that fails ends the run of a mutant.
STAGES: tuple[tuple[str, ...], ...] = (
    ("-m", "compileall", "-q", "gateway/fiscal", "gateway/store", "gateway/domain"),
    (*PYTEST, "tests/unit/test_store.py", "tests/property/test_ceiling.py", "tests/unit/test_domain.py",
     "tests/model/test_model.py", "-k", "not sound_rules"),
    (*SIM, "--seeds", "60", "--seed", "810000"),
    (*PYTEST, "tests/fault/test_decisions.py", "tests/fault/test_lost_answers.py", "tests/fault/test_evidence.py"),
    (*PYTEST, "tests/fault/test_witnesses.py", "tests/fault/test_old_copy.py", "tests/fault/test_other_store.py",
     "tests/fault/test_store_faults.py"),
    (*PYTEST, "tests/e2e/test_sale.py", "tests/e2e/test_keyless.py", "tests/e2e/test_continuity.py",
     "tests/e2e/test_reports.py", "tests/e2e/test_unit_causes.py", "tests/property/test_days.py"),
    (*PYTEST, "tests/fault/test_backup.py", "tests/fault/test_restore_cut_short.py", "tests/e2e/test_outbox.py",
     "tests/e2e/test_printing.py", "tests/e2e/test_payments_core.py", "tests/sim/test_week.py"),
    (*SIM, "--seeds", "250", "--seed", "820000"),
    (*SIM, "--payments", "--seeds", "20", "--seed", "5000"),
)  # fmt: skip
STAGE_MAX_S = 900.0


def survives(mutant: Mutant) -> tuple[bool, str]:
    """(whether no stage noticed it, the stage that did)."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        shutil.copytree(
            ROOT / "gateway", root / "gateway", ignore=shutil.ignore_patterns("__pycache__")
        )
        for name in LINKED:
            (root / name).symlink_to(ROOT / name)
        mutant.apply(root)
        env = {
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": folder,
        }
        for number, stage in enumerate(STAGES):
            try:
                done = subprocess.run(
                    [sys.executable, *stage],
                    cwd=root,
                    env=env,
                    capture_output=True,
                    timeout=STAGE_MAX_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return False, f"stage {number}: no end"
            if done.returncode != 0:
                return False, f"stage {number}"
    return True, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bar", type=float, default=95.0, help="lowest score in percent")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hours", type=float, default=6.0, help="begin no mutant after that")
    parser.add_argument("--show", type=int, default=0, help="list so many and end")
    options = parser.parse_args()
    equal = json.loads(EQUAL.read_text(encoding="utf-8"))
    chosen = [m for m in sample(options.show or options.count, options.seed) if m.name not in equal]
    if options.show:
        print("\n".join(f"{m.path}:{m.line} {m.name}" for m in chosen))
        return 0
    begun = time.monotonic()
    alive: list[Mutant] = []
    tried = 0

    def play(mutant: Mutant) -> None:
        nonlocal tried
        if time.monotonic() - begun > options.hours * 3600:
            return
        began = time.monotonic()
        survived, how = survives(mutant)
        tried += 1
        if survived:
            alive.append(mutant)
        word = "SURVIVED" if survived else f"killed, {how}"
        print(
            f"{tried:4} {time.monotonic() - began:5.0f} s  line {mutant.line} {mutant.name}  {word}",
            flush=True,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(play, chosen))
    score = 100.0 * (tried - len(alive)) / max(1, tried)
    print(
        f"{tried} of {len(chosen)} mutants, {len(alive)} survived, score {score:.1f} % "
        f"(bar {options.bar:.0f} %), seed {options.seed}, {time.monotonic() - begun:.0f} s"
    )
    return 0 if score >= options.bar else 1


if __name__ == "__main__":
    sys.exit(main())
