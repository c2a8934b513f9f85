"""python -m tests.litmus: what processors may reorder, of C11 and ARM, by herd7; nothing is run on one."""

from __future__ import annotations

import sys

from tests.litmus.herd import MISSING, MODELS, is_possible, program
from tests.litmus.orders import ORDERS, weakened, written


def main() -> int:
    if program() is None:
        print(MISSING)
        return 0
    failed = 0
    for name, order in ORDERS.items():
        for model in MODELS:
            possible = is_possible(written(name), model)
            print(f"{model} {name}: {'POSSIBLE: ' + order.harm if possible else 'never'}", flush=True)
            failed += possible
            for change in order.weaker:
                noticed = is_possible(weakened(name, change), model)
                print(f"{model} {name}, {change}: {'possible' if noticed else 'NOT NOTICED'}", flush=True)
                failed += not noticed
    print(f"{failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
