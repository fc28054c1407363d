"""`python -m tests.guests.topics [TOPIC ...]`: the report, side by side; `-o TOPIC FILE` writes an image to a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.guests.topics import TOPICS, image, program
from tests.guests.topics.known import NOT_ON_BOCHS, NOT_ON_QEMU, reason
from tests.guests.topics.run import PASS, RUNNERS, GuestError, Report, available

NOT_ON = {"qemu": NOT_ON_QEMU, "bochs": NOT_ON_BOCHS}


def reports(topic: str, runners: list[str]) -> dict[str, Report]:
    """What each runner says about a topic; one that doesn't come to its end says so in every check."""
    result = {}
    for runner in runners:
        try:
            if absent := NOT_ON.get(runner, {}).get(topic):
                raise GuestError(f"{topic}: {absent}")
            result[runner] = RUNNERS[runner](image(topic), topic)
        except GuestError as error:
            print(f"{runner}: {error}", file=sys.stderr)
            result[runner] = {}
    return result


def print_report(topics: list[str], runners: list[str], everything: bool) -> int:
    """A table of checks and runners; the number of checks in which pyemu is wrong."""
    wrong = 0
    width = 44
    print(f"{'check':<{width}}" + "".join(f"{runner:<10}" for runner in runners))
    for topic in topics:
        said = reports(topic, runners)
        names = program(topic).names
        for name in names:
            verdicts = {runner: said[runner].get(name, "missing") for runner in runners}
            good = all(verdict == PASS or not said[r] for r, verdict in verdicts.items())
            cells = {r: v if v in (PASS, "missing") else "WRONG" for r, v in verdicts.items()}
            wrong += any(cells[r] != PASS for r in runners if r in ("jit", "interp", "reference"))
            if good and not everything:
                continue
            print(f"{name:<{width}}" + "".join(f"{cells[r]:<10}" for r in runners) + reason(name))
            for runner, verdict in verdicts.items():
                if verdict not in (PASS, "missing"):
                    print(f"    {runner}: {verdict}")
        totals = [sum(said[r].get(name) == PASS for name in names) for r in runners]
        print(f"{f'{topic}: {len(names)} checks, passed':<{width}}" + "".join(f"{total:<10}" for total in totals))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guests.topics", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--report", action="store_true", help="show the checks that all pass, too")
    parser.add_argument("--on", default="jit,interp,qemu", help=f"where: {','.join(RUNNERS)}")
    parser.add_argument("-o", metavar="FILE", help="write the image of one topic to a file")
    options = parser.parse_args()
    topics = options.topics or list(TOPICS)
    if options.o:
        Path(options.o).write_bytes(image(topics[0]))
        return 0
    runners = [runner for runner in options.on.split(",") if available(runner)]
    return min(1, print_report(topics, runners, options.report))


if __name__ == "__main__":
    sys.exit(main())
