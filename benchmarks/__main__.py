"""`python -m benchmarks [NAME]...`, as `speed` or `prune`; all of them by default."""

from __future__ import annotations

import argparse

from benchmarks import digits, distance, effect, leaks, power, prune, rivals, speed, start

_ALL = {
    "start": start.main,
    "speed": speed.main,
    "digits": digits.main,
    "effect": effect.main,
    "distance": distance.main,
    "power": power.main,
    "prune": prune.main,
    "leaks": leaks.main,
    "rivals": rivals.main,
}


def main() -> None:
    """Run the chosen benchmarks one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*_ALL, []], help="default: all")
    for name in parser.parse_args().which or _ALL:
        _ALL[name]()


if __name__ == "__main__":
    main()
