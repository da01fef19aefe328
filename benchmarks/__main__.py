"""
Measure this project side by side with others, in one run on this machine.

The table goes to standard output; results.json, results.txt (for the pages)
and, with matplotlib, results.png and results.svg into the folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks import plot, table
from benchmarks.children import Programs
from benchmarks.measure import measure
from benchmarks.package import choose
from benchmarks.results import Results, machine
from benchmarks.rows import Row, all_rows, quick_rows
from benchmarks.targets import judge

#: Left out of version control.
OUTPUT = Path(__file__).with_name("results")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=_count, default=5, help="of each row; the median is told (5)")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=1.0,
        help="that a run takes where the number of messages is free (1)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="rows with this in their name (see --list), * for anything; may be given many times",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and end")
    parser.add_argument(
        "--quick", action="store_true", help="few messages, all at once: does it run? measures nothing"
    )
    parser.add_argument(
        "--pure",
        action=argparse.BooleanOptionalAction,
        help="measure the sources as they are, not the wheel that users get (with --quick: yes)",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="folder (%(default)s)")
    return parser.parse_args()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected an integer over 0, got {text!r}")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 60:
        raise argparse.ArgumentTypeError(f"expected seconds up to 60, got {text!r}")
    return seconds


def _is_wanted(row: Row, patterns: list[str]) -> bool:
    name = row.name.lower()
    return not patterns or any(fnmatchcase(name, f"*{pattern.lower()}*") for pattern in patterns)


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> int:
    """Measure, print, write."""
    arguments = _arguments()
    rows = [
        row for row in (quick_rows() if arguments.quick else all_rows()) if _is_wanted(row, arguments.only)
    ]
    if arguments.list:
        for row in rows:
            _say(row.name)
        return 0
    if not rows:
        _tell("no row has such a name; --list shows them")
        return 64
    # Each child may have as many connections as the system lets us.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    about = machine()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        pure = arguments.quick if arguments.pure is None else arguments.pure
        package = choose(Path(folder), pure=pure, tell=_tell)
        programs = Programs(Path(folder), package)
        if not programs.sink_is_fast:
            _tell("no C compiler: the sink is the one in Python, which is slower than what is measured")
        measured = measure(
            rows,
            programs,
            runs=1 if arguments.quick else arguments.runs,
            seconds=arguments.seconds,
            at_once=arguments.quick,
            tell=_tell,
        )
        about["package"] = package.description
        about["compiled"] = package.compiled
    about["sink"] = "in C" if programs.sink_is_fast else "in Python"
    about["settings"] = "quick" if arguments.quick else f"median of {arguments.runs} (least-most)"
    return _report(Results(measured, quick=arguments.quick), about, arguments.output)


def _report(results: Results, about: dict[str, Any], output: Path) -> int:
    targets = judge(results)
    for line in table.terminal(results, targets, about):
        _say(line)
    output.mkdir(parents=True, exist_ok=True)
    document = {
        "about": about,
        "quick": results.quick,
        "rows": results.as_json(),
        "targets": [vars(target) for target in targets],
    }
    (output / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(table.pages(results, targets, about))
    (output / "results.txt").write_text(text + "\n", encoding="utf-8")
    caption = next(iter(table.terminal(results, targets, about)))
    try:
        plot.draw(results, [output / "results.png", output / "results.svg"], caption)
    except plot.NotInstalled as error:
        _tell(str(error))
    _say(f"\n{output}: {', '.join(sorted(file.name for file in output.glob('results.*')))}")
    failed = [
        each for each in results.measured if each.missing and not each.missing.endswith("not installed")
    ]
    for each in failed:
        _tell(f"failed: {each.row.name}: {each.missing}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
