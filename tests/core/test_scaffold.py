"""Scaffold: the states of several objects, saved and restored together."""

import json

import pytest
import torch

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe
from fireworks.core.scaffold import Scaffold
from fireworks.testing import assert_same_messages
from fireworks.utils.exceptions import FormatError, StateError
from fireworks.utils.seeding import make_generator


class Counter(Pipe):
    stateful_attributes = ("count",)

    def __init__(self, input=None, count=0):
        super().__init__(input)
        self.count = count


class Shuffled(Pipe):
    stateful_attributes = ("order", "at")

    def __init__(self, input, seed=None):
        super().__init__(input)
        self.generator = make_generator(seed)
        self.order, self.at = [], 0

    def reset(self):
        self.order, self.at = torch.randperm(len(self.input), generator=self.generator).tolist(), 0

    def __next__(self):
        if self.at >= len(self.order):
            raise StopIteration
        self.at += 1
        return self.input[self.order[self.at - 1]]


def test_serialize_gives_each_state_by_name():
    scaffold = Scaffold({"a": Counter(count=1)})
    scaffold.attach("b", Pipe([1]))

    assert scaffold.serialize() == {
        "a": {"internal": {"count": 1}, "external": {}},
        "b": {"internal": {}, "external": {}},
    }


def test_save_writes_one_file_of_the_internal_state_per_object(tmp_path):
    Scaffold({"a": Counter(count=1), "b": Pipe([1])}).save(path=tmp_path / "new" / "folder", method="json")

    files = {file.name: json.loads(file.read_text()) for file in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"a.json": {"count": 1}, "b.json": {}}


@pytest.mark.parametrize("method", ["json", "safetensors"])
def test_load_gives_the_states_back_and_ignores_other_files(tmp_path, method):
    Scaffold({"a": Counter(count=1), "other": Counter(count=9)}).save(tmp_path, method=method)
    (tmp_path / "a.txt").write_text("nothing to see")
    (tmp_path / "notes.json").write_text("{")
    counter = Counter()

    Scaffold({"a": counter}).load(tmp_path, method=method)

    assert counter.count == 1


def test_an_object_without_a_file_is_an_error_unless_it_is_allowed(tmp_path):
    Scaffold({"a": Counter(count=1)}).save(tmp_path)
    first, second = Counter(), Counter(count=5)
    scaffold = Scaffold({"a": first, "b": second})

    with pytest.raises(StateError, match=r"has no b\.json; give strict=False to leave such objects as they are"):
        scaffold.load(tmp_path)
    assert first.count == 0

    scaffold.load(tmp_path, strict=False)
    assert (first.count, second.count) == (1, 5)


@pytest.mark.parametrize("item", [object(), Message(), [1]])
def test_an_object_without_state_cannot_be_attached(item):
    with pytest.raises(AttributeError, match=f"'x' cannot be saved: {type(item).__name__} has no get_state"):
        Scaffold().attach("x", item)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/etc/passwd", "a/b", "a\\b", "c:d", "nul\0", 3])
def test_a_name_that_would_leave_the_folder_is_refused(name):
    with pytest.raises(ValueError, match="expected a name that can be a file's"):
        Scaffold({name: Counter()})


def test_a_state_that_cannot_be_written_changes_no_file(tmp_path):
    good, bad = Counter(count=1), Counter(count=1)
    scaffold = Scaffold({"good": good, "bad": bad})
    scaffold.save(tmp_path)
    good.count, bad.count = 2, {1, 2}

    with pytest.raises(StateError, match=r"'bad' cannot be saved: state\['count'\] is a set"):
        scaffold.save(tmp_path)

    assert json.loads((tmp_path / "good.json").read_text()) == {"count": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.json", "good.json"]


def test_a_damaged_file_is_named_and_no_object_is_changed(tmp_path):
    Scaffold({"a": Counter(count=1), "b": Counter(count=1)}).save(tmp_path)
    (tmp_path / "b.json").write_text('{"count": ')
    counter = Counter()

    with pytest.raises(FormatError, match=r"b\.json: this is no saved state of fireworks"):
        Scaffold({"a": counter, "b": Counter()}).load(tmp_path)

    assert counter.count == 0


def test_a_state_that_does_not_fit_names_its_object(tmp_path):
    (tmp_path / "a.json").write_text("{}")

    with pytest.raises(StateError, match="'a': the state does not fit Counter: no value for 'count'"):
        Scaffold({"a": Counter()}).load(tmp_path)


@pytest.mark.parametrize("call", ["save", "load"])
def test_an_unknown_method_is_refused_with_the_nearest_one(tmp_path, call):
    with pytest.raises(ValueError, match="expected method 'json' or 'safetensors', got 'jsom'; did you mean 'json'"):
        getattr(Scaffold({"a": Counter()}), call)(tmp_path, method="jsom")


def build(seed):
    torch.manual_seed(seed)
    data = Message({"x": torch.arange(10.0), "text": [f"row {number}" for number in range(10)]})
    return Model(components={"m": torch.randn(1).tolist()}, input=Counter(Shuffled(Pipe(data))))


@pytest.mark.parametrize("method", ["json", "safetensors"])
def test_one_save_holds_all_stages_of_a_pipeline_and_another_run_goes_on_from_it(tmp_path, method):
    pipeline, other = build(seed=1), build(seed=2)
    pipes = pipeline.input, other.input
    for _, _ in zip(range(4), pipes[0], strict=False):
        pass
    pipes[0].count = 4
    Scaffold.from_pipeline(pipeline).save(tmp_path, method=method)
    expected = list(pipes[0].remaining()), list(pipes[0])

    Scaffold.from_pipeline(other).load(tmp_path, method=method)

    assert len(expected[0]) == 6 or len(expected[0]) == 5
    assert_same_messages(list(pipes[1].remaining()), expected[0])
    assert_same_messages(list(pipes[1]), expected[1])
    assert pipes[1].count == 4 and torch.equal(other.m, pipeline.m)


def test_a_scaffold_of_a_pipeline_names_stages_by_their_path():
    assert repr(Scaffold.from_pipeline(build(0), name="run")) == (
        "Scaffold(run, run.input, run.input.input, run.input.input.input)"
    )


def test_a_scaffold_has_a_state_itself():
    counters = Counter(count=1), Counter()
    state = Scaffold({"a": counters[0]}).get_state()

    assert state == {"internal": {"a": {"count": 1}}, "external": {}}
    Scaffold({"a": counters[1]}).set_state(state)
    assert counters[1].count == 1
    with pytest.raises(StateError, match="the state does not fit this scaffold: no state for 'b'"):
        Scaffold({"b": Counter()}).set_state(state)
    with pytest.raises(StateError, match="expected a state"):
        Scaffold().set_state({})
