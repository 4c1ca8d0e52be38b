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
    run.add_argument("--record", action="store_true", help="into results.json and the table of the README, too")
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
    if options.record and options.only:
        print("--record takes whole groups; leave out --only", file=sys.stderr)
        return 2
    clock = _processor_time if options.cpu else time.perf_counter
    conditions = report.conditions() | {"clock": "processor time" if options.cpu else "wall time"}
    results: list[Result] = []
    for group in options.groups or GROUPS:
        print(f"\n{group}. {_title(group)}\n", flush=True)
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="fireworks-bench-") as folder:
            items = (item for item in group_workloads(group, options.scale, Path(folder)) if options.only in item.name)
            for result in run_group(group, items, options.seconds, clock):
                results.append(result)
                print(report.lines_of(result), flush=True)
                report.save(options.json, results, conditions)
        own = [result for result in results if result.group == group]
        print(f"\n{group}: {report.counted(own)}; {time.perf_counter() - start:.0f} s", flush=True)
    if options.record:
        _record(results, conditions, HERE)
    print(f"\n{report.counted(results)}. {options.json}")
    return 0


def _title(group: str) -> str:
    title: str = import_module(f"benchmarks.{GROUPS[group]}").TITLE
    return title


def _record(results: list[Result], conditions: dict[str, Any], folder: Path) -> None:
    """Into results.json and the table of the README; groups that this run left out stay as they were."""
    path = folder / "results.json"
    measured = {result.group for result in results}
    if measured != set(GROUPS) and path.is_file():
        earlier, of_earlier = report.load(path)
        kept = [result for result in earlier if result.group not in measured]
        results = sorted([*results, *kept], key=lambda result: result.group)
        groups = ", ".join(sorted({result.group for result in kept}))
        conditions = conditions | {"earlier": {"groups": groups, "date": of_earlier["date"]}}
    report.save(path, results, conditions)
    titles = {group: _title(group) for group in GROUPS}
    report.write_readme(folder / "README.md", report.table_of(results, titles, conditions))


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
