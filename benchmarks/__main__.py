"""The command line: `python -m benchmarks run`, `compare OLD NEW`, `growth`; `make bench` calls it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.runner import Fact, Result, Workload, run_group

GROUPS = {
    "A": "messages",
    "B": "epochs",
    "C": "caches",
    "D": "databases",
    "E": "files",
    "F": "searches",
    "G": "sequences",
    "H": "training",
    "I": "imports",
}
HERE = Path(__file__).parent


def group_workloads(group: str, scale: float, folder: Path) -> Iterator[Workload | Fact]:
    """The workloads of a group, by its letter."""
    items: Iterator[Workload | Fact] = import_module(f"benchmarks.{GROUPS[group]}").workloads(scale, folder)
    return items


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return int(options.function(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast fireworks is beside its peers.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure and print workload, times, ratios and targets")
    run.add_argument("groups", nargs="*", type=str.upper, help=f"of {' '.join(GROUPS)}; all by default")
    run.add_argument("--only", default="", help="workloads whose name has this text")
    run.add_argument("--seconds", type=float, default=3.0, help="to measure each workload for, at least (default 3)")
    run.add_argument("--scale", type=float, default=1.0, help="of the data; targets are meant for 1")
    run.add_argument("--cpu", action="store_true", help="count processor time, on a machine that is busy otherwise")
    run.add_argument("--json", type=Path, default=HERE / "latest.json", help="where results go (latest.json)")
    run.add_argument("--record", action="store_true", help="as results.json and the table of the README, too")
    run.set_defaults(function=_run)
    both = commands.add_parser("compare", help="show what became slower or faster, by ratio")
    both.add_argument("old", type=Path)
    both.add_argument("new", type=Path)
    both.add_argument("--tolerance", type=float, default=0.1, help="changes up to this are noise (default 0.1)")
    both.set_defaults(function=_compare)
    growth = commands.add_parser("growth", help="draw how cost grows with size, as pictures in benchmarks/")
    growth.add_argument("topics", nargs="*", help="of them; all by default")
    growth.add_argument("--scale", type=float, default=1.0, help="of the largest sizes")
    growth.add_argument("--folder", type=Path, default=HERE, help="where pictures go")
    growth.set_defaults(function=_growth)
    return parser


def _run(options: Any) -> int:
    unknown = [group for group in options.groups if group not in GROUPS]
    if unknown:
        print(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    clock = _processor_time if options.cpu else time.perf_counter
    conditions = report.conditions() | {"clock": "processor time" if options.cpu else "wall time"}
    results: list[Result] = []
    titles: dict[str, str] = {}
    for group in options.groups or GROUPS:
        titles[group] = import_module(f"benchmarks.{GROUPS[group]}").TITLE
        print(f"\n{group}. {titles[group]}\n", flush=True)
        with tempfile.TemporaryDirectory(prefix="fireworks-bench-") as folder:
            items = (item for item in group_workloads(group, options.scale, Path(folder)) if options.only in item.name)
            for result in run_group(group, items, options.seconds, clock):
                results.append(result)
                print(report.lines_of(result), flush=True)
                report.save(options.json, results, conditions)
    if options.record:
        report.save(HERE / "results.json", results, conditions)
        report.write_readme(HERE / "README.md", report.table_of(results, titles, conditions))
    verdicts = [target["met"] for result in results for target in result.targets]
    print(f"\n{verdicts.count(True)} of {len(verdicts)} targets met, {verdicts.count(False)} missed. {options.json}")
    return 0


def _processor_time() -> float:
    """Of this process and of those that it waited for."""
    import resource  # not on Windows

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _compare(options: Any) -> int:
    lines, is_worse = report.compare(options.old, options.new, options.tolerance)
    print("\n".join(lines) or "nothing changed")
    return int(is_worse)


def _growth(options: Any) -> int:
    from benchmarks import growth

    return growth.draw(options.topics, options.scale, options.folder)


if __name__ == "__main__":
    sys.exit(main())
