"""The benchmarks: every workload runs, all competitors deliver the same data, and regressions are shown."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import GROUPS, _record, group_workloads, main
from benchmarks.growth import CONSTANT, LINEAR, TOPICS, Point, curves_of
from benchmarks.report import amount, conditions, load, table_of, write_readme
from benchmarks.runner import OURS, Fact, Target, Workload, check, measure

TINY = 0.01


@pytest.mark.filterwarnings("ignore")  # of the competitors
@pytest.mark.parametrize("group", GROUPS)
def test_every_workload_runs_and_all_competitors_deliver_the_same_data(group, tmp_path):
    names = []
    for item in group_workloads(group, TINY, tmp_path):
        values = item.values if isinstance(item, Fact) else item.competitors
        if isinstance(item, Workload):
            assert OURS in check(item)
        names.append(item.name)
        assert {target.to for target in item.targets} <= {*values, "seconds", "MB"}
    assert len(names) == len(set(names)) > 0


def test_a_competitor_that_delivers_other_data_is_found_out():
    item = Workload("rows", {OURS: lambda: {"x": [1, 2, 3]}, "other": lambda: {"x": [1, 2, 4]}})
    with pytest.raises(AssertionError, match="rows: fireworks and other differ in 'x'"):
        measure("A", item, seconds=0.0)


def test_competitors_that_share_no_column_are_not_compared_silently():
    item = Workload("rows", {OURS: lambda: {"x": [1]}, "other": lambda: {"y": [1]}})
    with pytest.raises(AssertionError, match=r"fireworks \(\['x'\]\) and other \(\['y'\]\) share no column"):
        measure("A", item, seconds=0.0)


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


def write_results(path, ours, name="slice"):
    target = {"to": "other", "limit": 0.7, "ratio": ours / 2.0, "met": True}
    result = {"group": "A", "name": name, "unit": "s", "values": {OURS: ours, "other": 2.0}, "targets": [target],
              "memory": {}, "rounds": 3}  # fmt: skip
    path.write_text(json.dumps({"conditions": {}, "results": [result]}))
    return str(path)


def test_compare_shows_what_became_slower_than_its_competitor(tmp_path, capsys):
    old, new = write_results(tmp_path / "old.json", 1.0), write_results(tmp_path / "new.json", 1.5)

    assert main(["compare", old, new]) == 1
    assert capsys.readouterr().out == "WORSE   1.50 times  A  slice: 0.5 → 0.75 × other\n"
    assert main(["compare", new, old]) == 0
    assert capsys.readouterr().out == "better  0.67 times  A  slice: 0.75 → 0.5 × other\n"


def test_compare_shows_workloads_that_are_gone_and_no_noise(tmp_path, capsys):
    old = write_results(tmp_path / "old.json", 1.0)

    assert main(["compare", old, write_results(tmp_path / "noise.json", 1.05)]) == 0
    assert capsys.readouterr().out == "nothing changed\n"
    assert main(["compare", old, write_results(tmp_path / "gone.json", 1.0, name="other rows")]) == 0
    assert capsys.readouterr().out.split() == ["gone", "A", "slice"]


def test_a_run_prints_saves_and_tables_its_results(tmp_path, capsys):
    assert (
        main(["run", "C", "--only", "hit", "--scale", str(TINY), "--seconds", "0", "--json", f"{tmp_path}/c.json"]) == 0
    )
    printed = capsys.readouterr().out
    assert "C  hit, 32 rows: " in printed and "C: " in printed and "1 targets met, " in printed
    results, where = load(tmp_path / "c.json")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    write_readme(readme, table_of(results, {"C": "Caches"}, where))

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


def test_a_record_of_one_group_keeps_the_others_and_says_so(tmp_path):
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- end of results -->\n")
    results, _ = load(Path(write_results(tmp_path / "a.json", 1.0)))
    where = conditions() | {"clock": "wall time", "date": "2026-01-02"}
    _record([*results, replace(results[0], group="B", name="old")], where, tmp_path)
    _record([replace(results[0], group="B", name="new")], where | {"date": "2026-03-04"}, tmp_path)

    assert [(result.group, result.name) for result in load(tmp_path / "results.json")[0]] == [
        ("A", "slice"),
        ("B", "new"),
    ]
    text = (tmp_path / "README.md").read_text()
    assert "2 of 2 targets met, 0 missed, 0 not measured. Best of" in text
    assert "Wall time; 2026-03-04" in text and "earlier runs, the last of 2026-01-02: A." in text
    assert main(["run", "C", "--only", "hit", "--record"]) == 2


def test_an_unknown_group_is_named(capsys):
    assert main(["run", "Z"]) == 2
    assert "no group Z; there are A, B" in capsys.readouterr().err


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
