"""What is put into an experiment comes back: metrics, parameters, messages, models, scaffolds, figures."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fireworks import Message, Model, Pipe, Scaffold
from fireworks.extensions.experiment import Experiment, load_experiment
from fireworks.toolbox import Normalizer, ShufflerPipe
from fireworks.utils.exceptions import ColumnError, FormatError, StateError


@pytest.fixture
def experiment(tmp_path):
    with Experiment("xmen", tmp_path, capture=False) as experiment:
        yield experiment


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_are_columns_with_a_row_per_call(experiment):
    experiment.log_metrics(step=0, loss=0.5, **{"eval/accuracy": 0.25})
    experiment.log_metrics(step=10, loss=torch.tensor(0.25), rows=np.int64(3), is_best=np.True_)
    experiment.log_metrics(loss=np.float32(0.125), rows=4)

    metrics = experiment.metrics()

    assert metrics.columns == ["step", "timestamp", "loss", "eval/accuracy", "rows", "is_best"]
    frame = metrics.df
    assert frame["step"].tolist() == [0, 10, 11]
    assert frame["loss"].tolist() == [0.5, 0.25, 0.125]
    assert frame["eval/accuracy"].isna().tolist() == [False, True, True]
    assert (frame["rows"].dtype, frame["rows"].tolist()) == ("Int64", [pd.NA, 3, 4])
    assert frame["is_best"].tolist() == [pd.NA, True, pd.NA]
    assert frame["timestamp"].is_monotonic_increasing and str(frame["timestamp"].dtype) == "datetime64[us, UTC]"


def test_chosen_metrics_come_with_the_rows_that_have_them(experiment):
    for step in range(4):
        experiment.log_metrics(step=step, loss=step / 2)
        experiment.log_metrics(step=step, **({"accuracy": float("nan")} if step == 2 else {"other": 1}))

    assert experiment.metrics("accuracy").df["step"].tolist() == [2]
    assert experiment.metrics("accuracy")["accuracy"].isna().tolist() == [True]
    assert experiment.metrics("loss", "other").columns == ["step", "timestamp", "loss", "other"]
    with pytest.raises(ColumnError, match=r"no column 'los'; did you mean 'loss'\?"):
        experiment.metrics("los")


def test_an_experiment_without_metrics_gives_none(experiment):
    assert len(experiment.metrics()) == 0
    assert experiment.metrics().columns == ["step", "timestamp"]


numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "c/d"]), numbers, min_size=1), min_size=1, max_size=8))
def test_any_numbers_come_back_as_they_went_in(experiment, rows):
    path = Path(experiment.save_path, "metrics.jsonl")
    if path.exists():
        os.truncate(path, 0)
    for row in rows:
        experiment.log_metrics(**row)

    metrics = experiment.metrics()

    for name in {name for row in rows for name in row}:
        given = [row.get(name) for row in rows]
        kinds = {type(value) for value in given if value is not None}
        back = metrics.df[name].tolist()
        for value, found in zip(given, back, strict=True):
            if value is None or value != value:
                assert pd.isna(found)
            else:
                assert found == (value if len(kinds) == 1 else float(value))
    assert all(json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines())


def test_any_name_is_one_of_a_metric(experiment):
    experiment.log_metrics(**{"self": 1, "a b/c": 2})
    assert experiment.metrics("self", "a b/c").df[["self", "a b/c"]].to_numpy().tolist() == [[1, 2]]


@pytest.mark.parametrize("value", ["0.5", None, [1.0], torch.zeros(2), 1 + 2j])
def test_a_metric_that_is_no_number_is_refused(experiment, value):
    with pytest.raises(TypeError, match=r"expected a number as metric 'loss', got .*; settings go to log_parameters"):
        experiment.log_metrics(step=1, loss=value, other=1.0)
    assert len(experiment.metrics()) == 0


def test_steps_are_integers_and_names_of_other_columns_are_taken(experiment):
    for step in (1.5, "1", True):
        with pytest.raises(TypeError, match="expected an integer as step"):
            experiment.log_metrics(step=step, loss=1)
    with pytest.raises(ValueError, match="'step' and 'timestamp' are columns of every metric"):
        experiment.log_metrics(timestamp=1)


def test_a_loaded_experiment_counts_its_steps_on(experiment):
    experiment.log_metrics(step=7, loss=1)

    loaded = load_experiment(experiment.save_path)
    loaded.log_metrics(loss=2)

    assert loaded.metrics()["step"].tolist() == [7, 8]


def test_a_line_that_was_cut_off_is_left_out_with_a_warning_and_does_no_harm_to_the_next(experiment):
    experiment.log_metrics(step=0, loss=1)
    experiment.finish()
    with open(experiment.open("metrics.jsonl", string_only=True), "ab") as file:
        file.write(b'{"step":1,"timestamp":3.0,"lo')

    load_experiment(experiment.save_path).log_metrics(step=2, loss=3)

    with pytest.warns(UserWarning, match=r"line 2 of .*metrics\.jsonl was not written to its end, and is left out"):
        assert experiment.metrics().df[["step", "loss"]].to_numpy().tolist() == [[0, 1], [2, 3]]


def test_threads_write_whole_lines(experiment):
    def write(number):
        for step in range(200):
            experiment.log_metrics(step=step, **{f"thread_{number}": step})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in range(4):
        assert experiment.metrics(f"thread_{number}")[f"thread_{number}"].tolist() == list(range(200))


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_kept_and_not_changed(experiment):
    experiment.log_parameters({"model": {"layers": [3, 4], "rate": float("nan")}}, seed=1)
    experiment.log_parameters(seed=1, name="a", model={"layers": [3, 4], "rate": float("nan")}, shape=(1, 2))

    with pytest.raises(ValueError, match="seed=1 is written down already; a run has its parameters once"):
        experiment.log_parameters(seed=2, other=3)
    with pytest.raises(
        TypeError, match=r"expected plain values \(text, numbers, None; lists and dicts of them\), got x=tensor"
    ):
        experiment.log_parameters(x=torch.zeros(2))
    with pytest.raises(ValueError, match=r"two values are called 'model\.layers'"):
        experiment.log_parameters({"model.layers": 1})

    found = load_experiment(experiment.save_path).parameters
    assert found["seed"] == 1 and found["shape"] == (1, 2) and found["model"]["layers"] == [3, 4]
    assert set(found) == {"model", "seed", "name", "shape"}


# --- objects ---------------------------------------------------------------------------------------------------------


def test_messages_and_tables_come_back_as_they_were(experiment):
    message = Message({"x": torch.rand(3, 2).half(), "s": ["a", None, "c"], "t": pd.to_datetime(["2026-01-01"] * 3)})
    frame = pd.DataFrame({"a": [1.5, None], "b": ["x", "y"]}, index=pd.Index(["p", "q"], name="key"))

    experiment.save("message", message)
    experiment.save("table", frame)

    assert experiment.load("message") == message and experiment.load("message")["x"].dtype == torch.half
    pd.testing.assert_frame_equal(experiment.load("table"), frame)
    assert experiment.saved == ["message", "table"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text größe",
        3.5,
        {"a": [1, (2, "x")], "nan": float("inf"), 3: None},
        torch.arange(3, dtype=torch.bfloat16),
        {"weights": torch.eye(2), "names": ["a"], "order": np.array([2, 1])},
        [],
    ],
)
def test_values_tensors_and_arrays_come_back_as_they_were(experiment, value):
    experiment.save("value", value)

    back = experiment.load("value")

    assert type(back) is type(value)
    if isinstance(value, torch.Tensor):
        assert back.dtype == value.dtype and torch.equal(back, value)
    elif isinstance(value, dict) and "weights" in value:
        assert torch.equal(back["weights"], value["weights"]) and back["names"] == ["a"]
        assert back["order"].tolist() == [2, 1]
    else:
        assert back == value


class Line(Model):
    def init_default_components(self):
        self.slope = torch.nn.Linear(2, 1)

    def forward(self, message):
        return message.merge({"y": self.slope(message["x"])})


def make_model():
    rows = Message({"x": torch.arange(20.0).reshape(10, 2)})
    return Line(input=Normalizer(input=Pipe(input=rows), columns=["x"]))


def test_a_model_is_saved_with_all_that_it_reads_through(experiment):
    model = make_model()
    for _ in model.input:
        pass
    model.input.compile()
    model.input.disable_updates()
    model.input.enable_inference()
    expected = model(model.input.input[:])["y"]
    experiment.save("model", model)

    other = make_model()
    other.input.disable_updates()
    other.input.enable_inference()
    assert load_experiment(experiment.save_path).load("model", into=other) is other

    assert torch.equal(other(other.input.input[:])["y"], expected)
    assert "slope" in experiment.load("model")[""]
    with pytest.raises(StateError):
        experiment.load("model", into=Line(input=None))


def test_modules_and_optimizers_take_their_state_back(experiment):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.25)
    module(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    experiment.save("module", module)
    experiment.save("optimizer", optimizer)

    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    experiment.load("module", into=other)
    again = experiment.load("optimizer", into=torch.optim.Adam(other.parameters()))

    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert again.param_groups[0]["lr"] == 0.25
    assert list(again.state.values())[0]["step"] == 1  # noqa: RUF015
    with pytest.raises(StateError, match="the state does not fit the Linear"):
        experiment.load("module", into=torch.nn.Linear(2, 2))


def test_a_scaffold_takes_the_states_of_its_items_back(experiment):
    def make():
        return ShufflerPipe(input=Message({"a": list(range(20))}), seed=3)

    pipe = make()
    iter(pipe)
    next(pipe)
    experiment.save("pipeline", Scaffold({"shuffler": pipe}))
    expected = [row["a"][0] for row in (next(pipe), next(pipe))]

    other = make()
    experiment.load("pipeline", into=Scaffold({"shuffler": other}))

    assert [row["a"][0] for row in (next(other), next(other))] == expected
    assert set(experiment.load("pipeline")) == {"shuffler"}


def test_an_object_is_replaced_only_when_asked(experiment):
    experiment.save("best", 1)
    with pytest.raises(FileExistsError, match=r"there is an object 'best' in .*; choose another name, or give"):
        experiment.save("best", 2)
    experiment.save("best", torch.ones(1), overwrite=True)
    experiment.save("new", 3, overwrite=True)

    assert experiment.load("best").tolist() == [1.0]
    assert sorted(os.listdir(Path(experiment.save_path, "saved"))) == ["best", "new"]


def test_an_object_whose_replacement_was_killed_half_way_is_still_there(experiment):
    experiment.save("best", 1)
    saved = Path(experiment.save_path, "saved")
    os.rename(saved / "best", saved / ".best.previous")  # between two renames

    assert experiment.load("best") == 1
    assert experiment.saved == ["best"]
    with pytest.raises(FileExistsError, match="there is an object 'best'"):
        experiment.save("best", 2)
    experiment.save("best", 3, overwrite=True)
    assert experiment.load("best") == 3
    assert os.listdir(saved) == ["best"]


def test_what_can_only_be_pickled_is_refused_and_leaves_nothing(experiment):
    experiment.save("a", 1)
    with pytest.raises(TypeError, match="'f' is a function, which cannot be saved without pickling;"):
        experiment.save("f", make_model)
    with pytest.raises(TypeError, match="this DataFrame cannot be written as Parquet"):
        experiment.save("frame", pd.DataFrame({"a": [object()]}))
    with pytest.raises(TypeError, match=r"names of columns of several types, 0, 'a': rename\(columns=str\) them"):
        experiment.save("frame", pd.DataFrame({0: [1], "a": [2]}))

    assert os.listdir(Path(experiment.save_path, "saved")) == ["a"]


def test_loading_what_is_not_there_proposes_the_nearest_name(experiment):
    experiment.save("weights", 1)

    with pytest.raises(FileNotFoundError, match=r"no saved object 'weight'; did you mean 'weights'\? Saved: weights"):
        experiment.load("weight")
    with pytest.raises(TypeError, match=r"'weights' is a builtins\.int, not a state; load it without into="):
        experiment.load("weights", into=torch.nn.Linear(1, 1))


def test_a_damaged_or_unknown_object_is_an_error(experiment):
    experiment.save("a", torch.ones(2))
    experiment.save("b", 1)
    folder = Path(experiment.save_path, "saved")
    (folder / "a" / "state.safetensors").write_bytes(b"garbage")
    (folder / "b" / "object.json").write_text('{"kind": "hologram"}')

    with pytest.raises(FormatError, match="no saved state"):
        experiment.load("a")
    with pytest.raises(FormatError, match="holds an object of kind 'hologram', which this version does not know"):
        experiment.load("b")


# --- figures ---------------------------------------------------------------------------------------------------------


def test_a_plotly_figure_comes_back_to_be_restyled_and_has_a_picture(experiment):
    figure = go.Figure(go.Scatter(x=np.arange(3), y=[1.0, 4.0, 9.0], name="squares"), layout={"title": "before"})
    experiment.save("plot", figure)

    again = load_experiment(experiment.save_path).load("plot")
    assert again == figure
    again.update_layout(title="after")
    assert list(again.data[0].y) == [1, 4, 9]
    picture = Path(experiment.save_path, "saved", "plot", "figure.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def test_without_a_browser_the_figure_is_saved_all_the_same(experiment, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    with pytest.warns(
        UserWarning, match=r"saved as data, but without a PNG, which needs kaleido .* and Chrome"
    ) as caught:
        experiment.save("plot", go.Figure(go.Bar(y=[1, 2])))

    assert caught[0].filename == __file__
    assert list(experiment.load("plot").data[0].y) == [1, 2]
    assert "figure.png" not in os.listdir(Path(experiment.save_path, "saved", "plot"))


def test_a_matplotlib_figure_is_kept_as_pictures_and_as_the_numbers_drawn(experiment):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2, 3], [1.0, 4.0, np.nan], label="squares")
    left.set(title="growth", xlabel="n", yscale="log")
    left.bar([0, 1], [2, 3])
    right.scatter([1, 2], [3, 4])
    right.imshow(np.eye(2, dtype=np.uint8))
    experiment.save("plot", figure)

    left, right = experiment.load("plot")["axes"]
    assert (left["title"], left["xlabel"], left["yscale"]) == ("growth", "n", "log")
    assert left["lines"][0]["label"] == "squares"
    np.testing.assert_array_equal(left["lines"][0]["y"], [1, 4, np.nan])
    assert [bar["height"] for bar in left["bars"]] == [2, 3]
    assert right["points"][0]["y"].tolist() == [3, 4]
    assert right["images"][0].tolist() == [[1, 0], [0, 1]] and right["images"][0].dtype == np.uint8
    folder = Path(experiment.save_path, "saved", "plot")
    assert (folder / "figure.svg").read_text().startswith("<?xml")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_an_experiment_can_be_read_without_the_code_that_made_it(experiment):
    """By a fresh Python that knows neither the model's class nor fireworks."""
    experiment.save("model", make_model())
    experiment.log_metrics(loss=0.5)
    experiment.finish()
    script = (
        "import json, sqlite3, sys\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        "print(json.loads((folder / 'status.json').read_text())['status'])\n"
        "print([json.loads(line)['loss'] for line in (folder / 'metrics.jsonl').open()])\n"
        "connection = sqlite3.connect(f'file:{folder}/xmen.sqlite?mode=ro', uri=True)\n"
        "print(connection.execute('SELECT name, iteration FROM metadata').fetchall())\n"
    )
    command = [sys.executable, "-S", "-E", "-c", script, experiment.save_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout

    assert printed.splitlines() == ["completed", "[0.5]", "[('xmen', 0)]"]
    files = [path for path in Path(experiment.save_path).rglob("*") if path.is_file()]
    assert not any(path.read_bytes().startswith((b"\x80\x04", b"\x80\x05")) for path in files)
