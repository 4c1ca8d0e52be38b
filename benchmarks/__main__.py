"""The command line: `python -m benchmarks run`, `compare OLD NEW`, `growth`; `make bench` calls it."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.runner import Fact, Failure, Result, Workload, run_group

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
RECORD = "results.json"


def group_workloads(group: str, scale: float, folder: Path) -> Generator[Workload | Fact]:
    """The workloads of a group, by its letter; to be closed, since a group may have a server to clean up."""
    items: Generator[Workload | Fact] = import_module(f"benchmarks.{GROUPS[group]}").workloads(scale, folder)
    return items


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except report.Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast fireworks is beside its peers.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="measure and print workload, times, ratios and targets")
    run.add_argument("groups", nargs="*", type=str.upper, help=f"of {' '.join(GROUPS)}; all by default")
    run.add_argument("--only", default="", help="workloads whose name has this text")
    run.add_argument("--seconds", type=_seconds, default=2.0, help="to measure each workload for, at least (default 2)")
    run.add_argument("--scale", type=_scale, default=1.0, help="of the data; targets are meant for 1")
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
    growth.add_argument("--scale", type=_scale, default=1.0, help="of the largest sizes")
    growth.add_argument("--folder", type=Path, default=HERE, help="where pictures go")
    growth.set_defaults(function=_growth)
    return parser


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return scale


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return seconds


def _run(options: Any) -> int:
    _check(options)
    clock, name = (_processor_time, "processor time") if options.cpu else (time.perf_counter, "wall time")
    conditions = report.conditions() | {"clock": name, "scale": options.scale, "seconds": options.seconds}
    results: list[Result] = []
    failures: list[Failure] = []
    for group in dict.fromkeys(options.groups) or GROUPS:
        print(f"\n{group}. {_title(group)}\n", flush=True)
        start = time.perf_counter()
        found = _run_group(group, options, clock, conditions)
        own = [result for result in found if isinstance(result, Result)]
        results += own
        failures += [result for result in found if isinstance(result, Failure)]
        print(f"\n{group}: {report.counted(own)}; {time.perf_counter() - start:.0f} s", flush=True)
    return _end(options, results, failures)


def _run_group(
    group: str, options: Any, clock: Callable[[], float], conditions: dict[str, Any]
) -> list[Result | Failure]:
    """Measures the workloads that were asked for; prints and keeps each result, and cleans up however it ends."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="fireworks-bench-") as folder,
        closing(group_workloads(group, options.scale, Path(folder))) as items,
    ):
        chosen = (item for item in items if options.only in item.name)
        for result in run_group(group, chosen, options.seconds, clock):
            if isinstance(result, Failure):
                print(f"{group}  {result.name}: FAILED, {result.error}", file=sys.stderr, flush=True)
            else:
                result.conditions = conditions
                print(report.lines_of(result), flush=True)
            _keep(result, options.json)
            found.append(result)
    return found


def _check(options: Any) -> None:
    """Finds out before measuring what would go wrong after it.

    Raises:
        Refusal: Says what.
    """
    if unknown := [group for group in options.groups if group not in GROUPS]:
        raise report.Refusal(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if options.record and options.only:
        raise report.Refusal("--record takes whole groups; leave out --only")
    if options.record and (options.scale != 1 or options.cpu):
        raise report.Refusal("--record takes wall time at scale 1, as targets are meant; leave out --cpu, --scale")
    folder = options.json.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise report.Refusal(f"cannot write {options.json}: {folder} is no folder that can be written to")
    _load(options.json)
    if options.record:
        _load(HERE / RECORD)


def _load(path: Path) -> list[Result]:
    return report.load(path) if path.exists() else []


def _keep(result: Result | Failure, path: Path) -> None:
    """Into the file of results, in place of an earlier one; of what fails, none is left."""
    if isinstance(result, Result):
        report.save(path, report.merged(_load(path), [result]))
    else:
        kept = [one for one in _load(path) if (one.group, one.name) != (result.group, result.name)]
        report.save(path, kept)


def _end(options: Any, results: list[Result], failures: list[Failure]) -> int:
    """Records, sums up, and gives the exit code."""
    if not results and not failures:
        raise report.Refusal(f"no workload has {options.only!r} in its name")
    if options.record:
        incomplete = {failure.group for failure in failures}
        _record([result for result in results if result.group not in incomplete], HERE)
        if incomplete:
            print(f"not recorded, since something in it failed: {', '.join(sorted(incomplete))}", file=sys.stderr)
    failed = f", {len(failures)} failed" if failures else ""
    print(f"\n{report.counted(results)}{failed}. {options.json}")
    return int(bool(failures))


def _title(group: str) -> str:
    title: str = import_module(f"benchmarks.{GROUPS[group]}").TITLE
    return title


def _record(results: list[Result], folder: Path) -> None:
    """Into results.json and the table of the README; groups that this run left out stay as they were."""
    path = folder / RECORD
    measured = {result.group for result in results}
    kept = [result for result in _load(path) if result.group not in measured]
    everything = report.merged(kept, results)
    report.save(path, everything)
    report.write_readme(folder / "README.md", report.table_of(everything, {group: _title(group) for group in GROUPS}))


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
