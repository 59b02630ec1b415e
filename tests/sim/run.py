"""Simulated days by the hundred, or one of them with all that happened in it.

python -m tests.sim.run --seeds 1000        # or one seed with its trace: --seed 7 --trace
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time

from tests.sim import paying, selling


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run")
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --seed on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--payments", action="store_true", help="the shop that is paid by M-Pesa")
    parser.add_argument("--trace", action="store_true", help="one seed, with what happened")
    options = parser.parse_args()
    if "PYTHONHASHSEED" not in os.environ:
        # The order of sets is a part of what a seed replays.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]])
    logging.disable(logging.CRITICAL)
    play = paying.simulate if options.payments else selling.simulate
    if options.trace:
        outcome = play(options.seed)
        print("\n".join([*outcome.trace, *(f"PROBLEM {p}" for p in outcome.problems)]))
        return 1 if outcome.problems else 0
    begun = time.perf_counter()
    failed = counted = lives = 0
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = play(seed)
        counted += outcome.receipts
        lives += outcome.lives
        if outcome.problems:
            failed += 1
            print(f"seed {seed}: {outcome.problems[:3]}")
    seconds = time.perf_counter() - begun
    what = "payments" if options.payments else "receipts"
    print(
        f"{options.seeds} seeds, {counted} {what}, {lives} lives, {failed} failed, {seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
