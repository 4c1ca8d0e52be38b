"""The benchmarks: every workload runs, all competitors deliver the same data, and regressions are shown."""

import json
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.__main__ import GROUPS, _record, group_workloads, main
from benchmarks.growth import CONSTANT, LINEAR, TOPICS, Point, curves_of
from benchmarks.messages import rows_of
from benchmarks.report import amount, compare, conditions, load, table_of, write_readme
from benchmarks.runner import OTHER_ROUNDS, OURS, ROUNDS, Fact, Target, Workload, check, measure
from fireworks import Message
from tests.benchmark_targets import TARGETS

TINY = 0.01


@pytest.mark.filterwarnings("ignore")  # of the competitors
@pytest.mark.parametrize("group", GROUPS)
def test_every_workload_runs_and_all_competitors_deliver_the_same_data(group, tmp_path):
    names, judged = [], {}
    with closing(group_workloads(group, TINY, tmp_path)) as items:
        for item in items:
            values = item.values if isinstance(item, Fact) else item.competitors
            if isinstance(item, Workload):
                assert next(iter(check(item))) == OURS  # whose columns the others must have
            names.append(item.name)
            assert {target.to for target in item.targets} <= {*values, "seconds", "MB"}
            judged |= {(item.name, target.to): target.limit for target in item.targets}
    assert len(names) == len(set(names)) > 0
    share = rows_of(TINY) / 100_000  # for which limits in seconds are meant
    assert judged == {key: limit * (share if key[1] == "seconds" else 1) for key, limit in TARGETS[group].items()}


def test_a_competitor_that_delivers_other_data_is_found_out():
    item = Workload("rows", {OURS: lambda: {"x": [1, 2, 3]}, "other": lambda: {"x": [1, 2, 4]}})
    with pytest.raises(AssertionError, match="rows: fireworks and other differ in 'x'"):
        measure("A", item, seconds=0.0)


MESSAGE = Message({"x": torch.arange(2), "y": torch.arange(2), "s": ["a", "b"], "f": [0.5, 1.5]})
COLUMNS = {name: MESSAGE[name] for name in MESSAGE.columns}


def columns(names):
    return {name: COLUMNS[name] for name in names}


@pytest.mark.parametrize(
    "ours, others",
    [(MESSAGE, "xys"), (MESSAGE, "x"), (MESSAGE, "xsf"), (MESSAGE[["x", "y", "s"]], "xysf"), (columns("xy"), "x"),
     ([MESSAGE[["x", "y"]]], "xyf")],
)  # fmt: skip
def test_neither_ours_nor_another_may_drop_a_column(ours, others):
    item = Workload("rows", {OURS: lambda: ours, "other": lambda: columns(others)})
    with pytest.raises(AssertionError, match=r"rows: fireworks \(.*\) and other \(.*\) differ in columns"):
        check(item)


@pytest.mark.parametrize("ours", [MESSAGE, [MESSAGE]])
@pytest.mark.parametrize("others", ["xysf", "fsyx", "xy"])
def test_a_competitor_has_all_columns_or_just_the_tensors(ours, others):
    assert len(check(Workload("rows", {OURS: lambda: ours, "other": lambda: columns(others)}))) == 2


def test_arrow_tables_inside_of_dicts_are_compared_by_their_columns():
    table = pa.table({"s": ["a", "b"], "f": [0.5, 9.5]})
    with pytest.raises(AssertionError, match="differ in 'f'"):
        check(Workload("rows", {OURS: lambda: MESSAGE, "other": lambda: columns("xy") | {"df": table}}))


def test_who_is_judged_is_measured_in_ten_rounds_whatever_the_others_take():
    counts = dict.fromkeys([OURS, "named", "other"], 0)

    def run(name):
        counts[name] += 1
        return lambda: [1]

    given = {name: lambda _, name=name: run(name) for name in counts}
    result = measure("A", Workload("rows", given, [Target(1, "named")], before=list), seconds=0.0)

    beside = 2  # the check, and the memory
    assert counts == {OURS: ROUNDS + beside, "named": ROUNDS + beside, "other": OTHER_ROUNDS + beside}
    assert result.rounds == ROUNDS == 10


def test_a_competitor_that_is_not_installed_is_absent_and_its_target_open():
    item = Workload("rows", {OURS: lambda: [1], "other": None}, [Target(0.5, "other")])
    result = measure("A", item, seconds=0.0)

    assert result.values["other"] is None
    assert result.targets == [{"to": "other", "limit": 0.5, "ratio": None, "met": None}]


def test_a_fact_is_judged_by_its_ratio():
    result = measure(
        "A", Fact("size", {OURS: 3.0, "payload": 2.0}, [Target(1.4, "payload"), Target(4, "seconds")], ""), 0
    )

    assert [(target["ratio"], target["met"]) for target in result.targets] == [(1.5, False), (3.0, True)]


def write_results(path, ours=1.0, name="slice", values=None, targets=(("other", 0.7),), **conditions):
    """A file of one workload; `values` are those of competitors."""
    values = {"other": 2.0} if values is None else values
    ratios = {to: ours / values[to] if ours is not None and values.get(to) else ours for to, _ in targets}
    targets = [{"to": to, "limit": limit, "ratio": ratios[to], "met": True} for to, limit in targets]
    result = {"group": "A", "name": name, "unit": "s", "values": {OURS: ours, **values}, "targets": targets,
              "memory": {}, "rounds": 3}  # fmt: skip
    path.write_text(json.dumps({"conditions": conditions, "results": [result]}))
    return str(path)


def test_compare_shows_what_became_slower_than_its_competitor(tmp_path, capsys):
    old, new = write_results(tmp_path / "old.json", 1.0), write_results(tmp_path / "new.json", 1.5)

    assert main(["compare", old, new]) == 1
    assert capsys.readouterr().out == "WORSE   1.50 times  A  slice: 0.5 → 0.75 × other\n"
    assert main(["compare", new, old]) == 0
    assert capsys.readouterr().out == "better  0.67 times  A  slice: 0.75 → 0.5 × other\n"


BOTH = {"other": 2.0, "third": 4.0}
SECONDS = (("seconds", 2.0),)


@pytest.mark.parametrize(
    "old, new, shown, code",
    [
        ({}, {"ours": 1.05}, "nothing changed", 0),
        ({}, {"name": "rows"}, "GONE A slice new A rows", 1),
        ({"ours": None}, {"name": "rows"}, "gone A slice new A rows", 0),
        ({}, {"ours": None}, "GONE A slice: fireworks is absent", 1),
        ({"ours": None}, {}, "new A slice: fireworks is there", 0),
        ({"ours": None}, {"ours": None}, "nothing changed", 0),
        ({}, {"values": {"other": None}}, "GONE A slice: other is absent", 1),
        ({}, {"values": {}, "targets": ()}, "GONE A slice: other is absent", 1),
        ({"values": {"other": None}}, {}, "new A slice: other is there", 0),
        ({"ours": 0.0}, {"ours": 0.1}, "WORSE inf times A slice: 0 → 0.05 × other", 1),
        ({"ours": 0.0}, {"ours": 0.0}, "nothing changed", 0),
        ({"values": {"other": 0.0}}, {"values": {"other": 0.0}}, "nothing changed", 0),
        ({"values": BOTH}, {"values": BOTH | {"third": 2.0}}, "info 2.00 times A slice: 0.25 → 0.5 × third", 0),
        ({"values": BOTH}, {}, "info A slice: third is absent", 0),
        ({}, {"values": BOTH}, "new A slice: third is there", 0),
        ({"targets": ()}, {"targets": (), "ours": 2.0}, "info 2.00 times A slice: 0.5 → 1 × other", 0),
        ({"targets": ()}, {"ours": 2.0}, "WORSE 2.00 times A slice: 0.5 → 1 × other", 1),
        ({"targets": SECONDS, "values": {}}, {"targets": SECONDS, "values": {}, "ours": 1.5},
         "WORSE 1.50 times A slice: 0.5 → 0.75 of the limit in seconds", 1),
        ({}, {"scale": 0.01, "clock": "processor time"}, "note A scale 1 → 0.01, wall time → processor time: slice", 0),
    ],
)  # fmt: skip
def test_compare_hides_no_loss(old, new, shown, code, tmp_path, capsys):
    files = [write_results(tmp_path / name, **what) for name, what in (("old.json", old), ("new.json", new))]

    assert main(["compare", *files]) == code
    assert " ".join(capsys.readouterr().out.split()) == shown


@pytest.mark.parametrize("text", ["{", "{}", "[]", "3", '{"conditions": {}}', '{"runs": [], "results": [{}]}', None])
def test_files_that_hold_no_results_are_refused_in_one_line(text, tmp_path, capsys):
    good, bad = write_results(tmp_path / "good.json"), tmp_path / "bad.json"
    if text is not None:
        bad.write_text(text)
    why = f"cannot read {bad}: No such file" if text is None else f"{bad} is no file of results"

    for files in ([good, bad], [bad, good]):
        assert main(["compare", *map(str, files)]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith(why) and printed.err.count("\n") == 1


TEN = Workload("ten", {OURS: lambda: [1], "other": lambda: [1]}, [Target(1e9, "other")])
ELEVEN = Workload("eleven", {OURS: lambda: [1], "other": lambda: [1]})
WRONG = Workload("wrong", {OURS: lambda: [1], "other": lambda: [2]})


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a group X of given workloads, quickly, with results in tmp_path; a function among them is called."""
    monkeypatch.setitem(GROUPS, "X", "fake")
    monkeypatch.setattr(command, "HERE", tmp_path)
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end of results -->\n")

    def run(*items, options=(), scale=TINY):
        closed = []

        def workloads(scale, folder):
            try:
                for item in items:
                    yield item() if callable(item) else item
            finally:
                closed.append(True)

        monkeypatch.setitem(sys.modules, "benchmarks.fake", SimpleNamespace(TITLE="Fake", workloads=workloads))
        usual = {"--seconds": "0", "--scale": str(scale), "--json": str(tmp_path / "latest.json")}
        others = [f"{name}={value}" for name, value in usual.items() if name not in options]
        try:
            return main(["run", "X", *options, *others])
        finally:
            assert closed == [True] * len(closed)
            run.closed = len(closed)

    return run


def names_in(path):
    return [(result.group, result.name) for result in load(path)]


def test_a_run_replaces_what_it_measured_and_keeps_the_rest(run, tmp_path):
    latest = tmp_path / "latest.json"
    write_results(latest, scale=1.0)
    assert run(TEN, ELEVEN) == 0
    assert names_in(latest) == [("A", "slice"), ("X", "ten"), ("X", "eleven")]
    before = load(latest)

    assert run(TEN, ELEVEN, options=["--only", "ten"], scale=0.02) == 0
    assert names_in(latest) == [("A", "slice"), ("X", "ten"), ("X", "eleven")]
    after = load(latest)
    assert [result.conditions["scale"] for result in after] == [1.0, 0.02, TINY]
    assert after[0] == before[0] and after[2] == before[2]
    where = after[1].conditions
    assert where["clock"] == "wall time" and where["seconds"] == 0.0
    assert {"machine", "packages", "python", "date"} <= where.keys()


def test_workloads_are_closed_when_a_run_is_interrupted(run):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run(Workload("rows", {OURS: interrupt}), TEN)
    assert run.closed == 1 and caught.tb is not None  # while the traceback still holds the generator


def test_a_workload_that_fails_is_reported_and_the_others_are_measured(run, tmp_path, capsys):
    assert run(TEN, ELEVEN) == 0
    capsys.readouterr()

    assert run(TEN, replace(WRONG, name="eleven"), WRONG, replace(TEN, name="twelve")) == 1
    printed = capsys.readouterr()
    failed = [line.split(": FAILED, ") for line in printed.err.splitlines()]
    assert [name for name, _ in failed] == ["X  eleven", "X  wrong"]
    assert failed[1][1].startswith("AssertionError: wrong: fireworks and other differ in 'value'")
    assert "2 of 2 targets met, 0 missed, 0 not measured, 2 failed. " in printed.out
    assert names_in(tmp_path / "latest.json") == [("X", "ten"), ("X", "twelve")]


def test_a_group_that_cannot_go_on_is_reported(run, tmp_path, capsys):
    def fail():
        raise OSError("no server")

    assert run(TEN, fail, ELEVEN) == 1
    assert capsys.readouterr().err == "X  what follows ten: FAILED, OSError: no server\n"
    assert names_in(tmp_path / "latest.json") == [("X", "ten")]


def test_a_group_in_which_something_failed_is_not_recorded(run, tmp_path, capsys):
    assert run(TEN, ELEVEN, options=["--record"], scale=1) == 0
    record, readme = (tmp_path / "results.json").read_text(), (tmp_path / "README.md").read_text()
    assert "| ten | " in readme
    capsys.readouterr()

    assert run(TEN, WRONG, options=["--record"], scale=1) == 1
    assert "not recorded, since something in it failed: X\n" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == record and (tmp_path / "README.md").read_text() == readme


@pytest.mark.parametrize(
    "options, why",
    [
        (["--only", "nosuchthing"], "no workload has 'nosuchthing' in its name"),
        (["--record"], "--record takes wall time at scale 1"),
        (["--record", "--scale", "1", "--cpu"], "--record takes wall time at scale 1"),
        (["--record", "--only", "ten"], "--record takes whole groups; leave out --only"),
        (["Z", "Y"], "no group Z, Y; there are A, B"),
        (["--json", "no/such/latest.json"], "cannot write no/such/latest.json: no/such is no folder"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(options, why, run, tmp_path, capsys):
    assert run(TEN, options=options) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(why) and printed.err.count("\n") == 1
    assert run.closed == ("--only" in options and "--record" not in options)  # the others measure nothing
    assert not (tmp_path / "latest.json").exists()


@pytest.mark.parametrize("options", [[], ["--record", "--json", "LATEST"]])
def test_files_that_a_run_could_not_add_to_are_found_before_it(options, run, tmp_path, capsys):
    broken = tmp_path / ("results.json" if options else "latest.json")
    broken.write_text("{")

    assert run(TEN, options=options[:1], scale=1) == 2
    assert capsys.readouterr().err.startswith(f"{broken} is no file of results")
    assert run.closed == 0 and broken.read_text() == "{"


@pytest.mark.parametrize("options", [("--scale", "0"), ("--scale", "nan"), ("--seconds", "-5"), ("--seconds", "inf")])
def test_impossible_amounts_are_refused(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "I", *options])
    assert caught.value.code == 2
    assert f"argument {options[0]}: must be " in capsys.readouterr().err


def test_a_group_that_is_named_twice_is_measured_once(run, capsys):
    assert run(TEN, options=["x"]) == 0
    assert capsys.readouterr().out.count("X. Fake") == 1


def test_a_run_prints_saves_and_tables_its_results(tmp_path, capsys):
    assert (
        main(["run", "C", "--only", "hit", "--scale", str(TINY), "--seconds", "0", "--json", f"{tmp_path}/c.json"]) == 0
    )
    printed = capsys.readouterr().out
    assert "C  hit, 32 rows: " in printed
    results = load(tmp_path / "c.json")
    met = [target["met"] for target in results[0].targets]
    assert f"\nC: {met.count(True)} of {len(met)} targets met, " in printed
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    write_readme(readme, table_of(results, {"C": "Caches"}))

    assert [result.name for result in results] == ["hit, 32 rows"]
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "| hit, 32 rows | " in text and "### C. Caches" in text and "old" not in text


@pytest.mark.parametrize(
    "expected, power, verdict",
    [
        (CONSTANT, 0, "constant, measured size^0.00"),
        (CONSTANT, 1, "constant, measured size^1.00: TOO FAST"),
        (LINEAR, 1, "linear, measured size^1.00"),
        (LINEAR, 2, "linear, measured size^2.00: TOO FAST"),
    ],
)
def test_a_cost_that_grows_faster_than_expected_is_named(expected, power, verdict):
    points = [Point("claim", size, 1e-9 * size**power, expected) for size in (1000, 10, 10_000, 100)]
    curve = curves_of(points)["claim"]

    assert curve.sizes == [10, 100, 1000, 10_000]
    assert curve.verdict() == verdict


def test_growth_is_drawn_printed_and_kept_beside_that_of_other_topics(tmp_path, capsys, monkeypatch):
    def measure(sizes, folder):
        yield from (Point("look", size, 1e-6 * size, CONSTANT) for size in sizes)

    monkeypatch.setitem(TOPICS, "looks", replace(TOPICS["claims"], measure=measure))
    (tmp_path / "growth.json").write_text('{"other": {}}')

    assert main(["growth", "looks", "--folder", str(tmp_path), "--scale", "0.1"]) == 1
    assert "looks: look: expected constant, measured size^1.00: TOO FAST\n" in capsys.readouterr().out
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert list(kept) == ["looks", "other"]
    assert kept["looks"]["curves"]["look"]["sizes"] == [1, 10, 100, 1000, 10000]
    assert (tmp_path / "growth_looks.png").stat().st_size > 0


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_of_growth_measures_each_curve_at_each_size(topic, tmp_path):
    sizes = [1, 40, 80]
    curves = curves_of(list(TOPICS[topic].measure(sizes, tmp_path)))

    assert curves and all(curve.sizes == sizes for curve in curves.values())


def test_a_record_of_one_group_keeps_the_others_and_says_where_they_differ(tmp_path):
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end of results -->\n")
    where = conditions() | {"clock": "wall time", "scale": 1.0, "seconds": 2.0, "load": 0.0}
    where["packages"] = {"torch": "2.13.0", "numpy": "2.4.6"}
    first = where | {"date": "2026-01-02", "seconds": 3.0, "packages": {"torch": "2.12.0", "numpy": "2.4.6"}}
    [result] = load(Path(write_results(tmp_path / "a.json", **first)))
    _record([result, replace(result, group="B", name="old")], tmp_path)
    _record([replace(result, group="B", name="new", conditions=where | {"date": "2026-03-04"})], tmp_path)

    assert names_in(tmp_path / "results.json") == [("A", "slice"), ("B", "new")]
    text = (tmp_path / "README.md").read_text()
    assert "2 of 2 targets met, 0 missed, 0 not measured. Best of" in text
    assert "\n\nWall time; 2026-03-04; " in text and "; 2 s per workload or longer; " in text
    assert "; torch 2.13.0; numpy 2.4.6.\n" in text
    counted = "\n\n1 of 1 targets met, 0 missed, 0 not measured."
    assert f"{counted} Measured at another time: 2026-01-02; 3 s per workload or longer; torch 2.12.0.\n" in text
    assert f"{counted}\n" in text


def test_the_record_of_this_repository_can_be_read():
    path = Path(command.__file__).with_name("results.json")
    assert {result.group for result in load(path)} == set(GROUPS)
    assert compare(path, path, 0.1) == ([], False)


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (1.5e-6, "s", "1.5 µs"),
        (0.0123, "s", "12.3 ms"),
        (250.0, "s", "250 s"),
        (None, "s", "absent"),
        (3.0, "MB", "3 MB"),
    ],
)
def test_amounts_are_written_as_one_reads_them(value, unit, text):
    assert amount(value, unit) == text


def test_a_curve_is_judged_by_what_the_same_takes_by_hand():
    sizes = [10, 100, 1000]
    points = [Point(name, size, size**power, LINEAR) for name, power in
              [("copy", 1.5), ("copy, by hand", 1.4), ("scan", 1.5)] for size in sizes]  # fmt: skip
    curves = curves_of(points)

    assert {name: curve.grows_too_fast for name, curve in curves.items()} == {
        "copy": False,
        "copy, by hand": False,
        "scan": True,
    }
