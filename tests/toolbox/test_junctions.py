"""Hubs read several sources, each in its own order; a switch routes to one of them. All of them resume exactly."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from fireworks.core.message import Message
from fireworks.core.model import Model
from fireworks.core.pipe import Pipe, implements
from fireworks.testing import check_resume
from fireworks.toolbox.junctions import ClockworkHubJunction, HubJunction, RandomHubJunction, SwitchJunction
from fireworks.toolbox.pipes import BatchingPipe
from fireworks.utils.exceptions import StateError


def rows(*values):
    return Message({"x": list(values)})


def sources():
    return {"a": rows(1, 2, 3), "b": Pipe(input=rows(10, 20)), "c": Pipe(input=[{"x": [100]}, {"x": [200]}])}


def read(hub):
    return [int(item["x"][0]) for item in hub]


class Countdown:
    """A source of a user, with nothing but `__next__` and `reset`."""

    def __init__(self, start):
        self.start = self.left = start

    def reset(self):
        self.left = self.start

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return Message({"x": [self.left]})


def make_hub():
    return HubJunction(components=sources())


def make_random():
    return RandomHubJunction(components=sources(), weights={"a": 5}, seed=3)


def make_clockwork():
    return ClockworkHubJunction(components=sources(), order=["c", "a", "b"], weights={"a": 2})


def make_nested():
    return Pipe(input=HubJunction(components={"inner": make_random(), "outer": make_clockwork(), "own": Countdown(2)}))


def make_switched_hub():
    second = SwitchJunction(components=sources(), switch="c")
    return ClockworkHubJunction(components={"first": SwitchJunction(components=sources()), "second": second})


makers = pytest.mark.parametrize("make", [make_hub, make_random, make_clockwork, make_nested, make_switched_hub])
hubs = pytest.mark.parametrize("make", [make_hub, make_random, make_clockwork])


# Every hub


@makers
def test_hubs_resume_exactly(make):
    check_resume(make, fresh_process=make is make_nested)


@hubs
def test_a_hub_gives_every_item_of_every_source_once_and_then_ends(make):
    hub = make()

    assert sorted(read(hub)) == [1, 2, 3, 10, 20, 100, 200]
    with pytest.raises(StopIteration):
        next(hub)
    with pytest.raises(StopIteration):
        hub.sample_inputs()


@hubs
def test_each_for_starts_over_even_in_the_middle(make):
    hub = make()
    for _ in range(4):
        next(hub)

    assert len(read(hub)) == len(read(hub)) == 7


@hubs
def test_a_hub_can_be_stepped_without_iterating_over_it(make):
    hub = make()

    assert sorted(int(next(hub)["x"][0]) for _ in range(7)) == [1, 2, 3, 10, 20, 100, 200]


@hubs
def test_sources_that_have_ended_are_no_longer_available(make):
    hub = make()

    assert hub._available_inputs == {"a", "b", "c"}
    read(hub)
    assert hub._available_inputs == set()
    assert hub.reset() is hub
    assert hub._available_inputs == {"a", "b", "c"}


@hubs
def test_a_hub_knows_how_many_items_it_yields(make):
    assert make().batches_per_epoch == 7
    assert HubJunction(components={"a": rows(1), "b": Countdown(3)}).batches_per_epoch is None


@hubs
def test_a_hub_is_an_input_like_any_other(make):
    pipe = Pipe(input=make())

    assert sorted(read(pipe)) == sorted(read(pipe)) == [1, 2, 3, 10, 20, 100, 200]


@hubs
def test_hubs_can_be_copied_and_pickled_in_the_middle(make):
    hub = make()
    for _ in range(3):
        next(hub)

    copies = copy.deepcopy(hub), pickle.loads(pickle.dumps(hub))
    expected = [int(next(hub)["x"][0]) for _ in range(4)]

    for other in copies:
        assert [int(next(other)["x"][0]) for _ in range(4)] == expected


@hubs
def test_a_state_of_other_sources_is_refused_and_changes_nothing(make):
    hub = make()
    next(hub)
    before = hub.get_state()
    state = hub.get_state()
    state["internal"]["available_inputs"] = ["a", "bb"]

    with pytest.raises(StateError, match=r"the state is of other sources: \w+ has no 'bb'.*Sources: a, b, c"):
        hub.set_state(state)
    del state["internal"]["input_positions"]
    with pytest.raises(StateError, match="no value for 'input_positions'"):
        hub.set_state(state)
    with pytest.raises(StateError, match="'turns'"):
        hub.set_state({"internal": {**before["internal"], "turns": 1}})

    after = hub.get_state()
    assert after["internal"].keys() == before["internal"].keys()
    assert all(str(after["internal"][name]) == str(before["internal"][name]) for name in before["internal"])


def test_two_hubs_read_one_message_without_disturbing_each_other():
    message = rows(1, 2, 3)
    first, second = HubJunction(components={"a": message}), HubJunction(components={"a": message, "b": message})

    pairs = [(int(one["x"][0]), int(other["x"][0])) for one in first for other in second]

    assert len(pairs) == 18 and next(message)["x"][0] == 1


def test_a_linked_source_is_read_from_its_owner():
    class Holder:
        data = rows(1, 2)

    hub = HubJunction(components={"a": (Holder, "data"), "b": rows(3)})
    assert read(hub) == [1, 2, 3]

    Holder.data = rows(7)
    assert read(hub) == [7, 3]


def test_sources_can_be_added_and_removed():
    hub = HubJunction(components={"a": rows(1)})

    hub.b = rows(2)
    assert read(hub) == [1, 2]
    del hub.a
    assert read(hub) == [2]


@pytest.mark.parametrize(
    "source, lacking",
    [
        (object(), "__next__ and reset"),
        ([1, 2], "__next__ and reset"),
        (iter([1, 2]), "reset"),
        ("text", "__next__ and reset"),
        (Pipe(input=iter([1])), "reset"),
    ],
    ids=["object", "list", "iterator", "text", "pipe over an iterator"],
)
def test_what_cannot_be_stepped_and_reset_is_no_source(source, lacking):
    with pytest.raises(TypeError, match=r"HubJunction needs sources with __next__ and reset: 'b' \(") as caught:
        HubJunction(components={"a": rows(1), "b": source})

    assert f"lacks {lacking}. Pipe(input=...) around" in str(caught.value)


def test_sources_are_no_part_of_the_state():
    hub = HubJunction(components=sources())
    next(hub)

    assert hub.get_state() == {
        "internal": {"input_positions": {"a": 1}, "available_inputs": ["a", "b", "c"]},
        "external": {},
    }


def test_repr_names_the_sources_and_arguments():
    assert repr(make_clockwork()) == "ClockworkHubJunction(a, b, c, order=['c', 'a', 'b'], weights={'a': 2})"


def test_batches_of_a_hub_or_switch_are_counted_by_rows():
    hub = HubJunction(components={"a": BatchingPipe(rows(*range(10)), batch_size=4), "b": rows(1, 2)})
    endless = SwitchJunction(components={"data": hub, "other": Pipe(input=Countdown(3))})

    for source in (hub, endless):
        batches = BatchingPipe(source, batch_size=5)
        assert batches.batches_per_epoch == len(list(batches)) == 3
    endless.switch = "other"
    assert BatchingPipe(endless).batches_per_epoch is None


def test_worker_processes_share_the_items_of_a_hub():
    loader = DataLoader(Pipe(input=make_random()).as_dataset(), batch_size=None, num_workers=2)

    assert len(loader) == 7
    assert sorted(read(loader)) == [1, 2, 3, 10, 20, 100, 200]


def test_a_subclass_chooses_in_its_own_way():
    class LongestFirst(HubJunction):
        def sample_inputs(self):
            return max(self._available_inputs, key=lambda name: len(self.components[name]))

    assert read(LongestFirst(components={"a": rows(1), "b": rows(2, 3)})) == [2, 3, 1]


# The order of each


def test_the_plain_hub_reads_one_source_after_the_other():
    assert read(make_hub()) == [1, 2, 3, 10, 20, 100, 200]


def test_a_hub_without_sources_is_empty():
    assert read(HubJunction()) == []


def test_a_seed_makes_a_random_hub_repeatable_and_epochs_differ():
    def make(seed):
        components = {"a": rows(*range(10)), "b": rows(*range(10, 20))}
        return RandomHubJunction(components=components, seed=seed)

    first, second = make(3), make(3)
    epochs = [read(first), read(first)]

    assert epochs == [read(second), read(second)]
    assert epochs[0] != epochs[1] and read(make(4)) != epochs[0]


def test_without_a_seed_the_global_generator_decides():
    def order(seed):
        torch.manual_seed(seed)
        return read(RandomHubJunction(components={"a": rows(*range(20)), "b": rows(*range(20, 40))}))

    assert order(1) == order(1) != order(2)


def test_an_unknown_argument_of_a_hub_is_compared_with_those_that_it_takes():
    text = "RandomHubJunction: unknown argument 'weigths'; did you mean 'weights'. It takes: components, weights, seed"
    with pytest.raises(TypeError, match=text):
        RandomHubJunction(components=sources(), weigths={"a": 5})


@pytest.mark.parametrize("weights", [{"a": 3.0, "b": 1}, [3, 1], {"a": 3}])
def test_weights_say_how_often_a_source_is_chosen(weights):
    components = {"a": rows(*range(4000)), "b": rows(*range(4000))}
    hub = RandomHubJunction(components=components, weights=weights, seed=0)

    counts = Counter(hub.sample_inputs() for _ in range(4000))

    assert counts["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_random_hub_keeps_the_order_within_a_source():
    hub = RandomHubJunction(components={"a": rows(*range(50)), "b": rows(*range(50, 100))}, seed=1)

    values = read(hub)

    assert [value for value in values if value < 50] == list(range(50))
    assert [value for value in values if value >= 50] == list(range(50, 100))


def test_a_clockwork_hub_goes_round_in_the_order_given():
    components = {"b": rows(1, 2, 3), "a": rows(10), "c": rows(100, 200)}

    assert read(ClockworkHubJunction(components=components)) == [1, 10, 100, 2, 200, 3]
    assert read(ClockworkHubJunction(components=components, order=["c", "b", "a"])) == [100, 1, 10, 200, 2, 3]
    assert read(ClockworkHubJunction(components=components, order=["c", "b", "b", "a"])) == [100, 1, 2, 10, 200, 3]


def test_links_take_part_in_the_order_given():
    class Holder:
        data = rows(1, 2)

    hub = ClockworkHubJunction(components={"first": (Holder, "data"), "second": rows(10, 20)})

    assert read(hub) == [1, 10, 2, 20]


@pytest.mark.parametrize("weights", [{"a": 2}, [2, 1], {"a": 2.0, "b": 1}])
def test_weights_of_a_clockwork_hub_are_items_in_a_row(weights):
    components = {"a": rows(1, 2, 3), "b": rows(10, 20)}

    assert read(ClockworkHubJunction(components=components, weights=weights)) == [1, 2, 10, 3, 20]


@pytest.mark.parametrize("hub", [RandomHubJunction, ClockworkHubJunction])
@pytest.mark.parametrize(
    "weights, text",
    [
        ({"aa": 1}, r"no source 'aa'; did you mean 'a'\. Sources: a, b"),
        ({"a": 0, "b": -1}, r"'a' has weight 0; 'b' has weight -1"),
        ({"a": float("nan")}, "'a' has weight nan"),
        ([1], "expected a weight for each of 2 sources, got 1"),
    ],
)
def test_wrong_weights_are_refused(hub, weights, text):
    with pytest.raises(ValueError, match=text):
        hub(components={"a": rows(1), "b": rows(2)}, weights=weights)


def test_weights_of_a_clockwork_hub_are_whole():
    with pytest.raises(ValueError, match=r"a weight is a number of items in a row, got 'a': 1\.5"):
        ClockworkHubJunction(components={"a": rows(1)}, weights={"a": 1.5})


def test_an_order_names_every_source():
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text follows
        ClockworkHubJunction(components={"a": rows(1), "b": rows(2)}, order=["aa", "b"])

    assert str(caught.value) == (
        "ClockworkHubJunction: it has no 'aa'; did you mean 'a'; the order leaves out 'a'. Sources: a, b"
    )


# SwitchJunction


def test_calls_go_to_the_first_component_until_switched():
    junction = SwitchJunction(components={"train": rows(1, 2), "test": rows(3)})

    assert (junction.switch, len(junction), read(junction)) == ("train", 2, [1, 2])
    junction.switch = "test"
    assert (len(junction), read(junction), junction[0]["x"][0]) == (1, [3], 3)
    assert junction.route is junction.components["test"]
    assert SwitchJunction(components={"train": rows(1, 2), "test": rows(3)}, switch="test").switch == "test"


def test_attributes_methods_and_calls_are_routed():
    class Double(Model):
        factor = 2

        def forward(self, message):
            return message.map({"x": lambda column: column * self.factor})

    class Triple(Double):
        factor = 3

    junction = SwitchJunction(components={"double": Double(), "triple": Triple()})

    assert junction(rows(1))["x"].tolist() == [2]
    junction.switch = "triple"
    assert junction(rows(1))["x"].tolist() == [3]
    assert junction.factor == 3 and junction.double is junction.components["double"]
    junction.disable_inference()
    assert junction(rows(1))["x"].tolist() == [1]
    assert not hasattr(junction, "no_such_thing") and not hasattr(junction, "_private")


def test_each_component_goes_on_where_it_stood():
    junction = SwitchJunction(components={"a": rows(1, 2, 3), "b": Pipe(input=rows(10, 20))})

    values = []
    for name in "abab":
        junction.switch = name
        values.append(int(next(junction)["x"][0]))

    assert values == [1, 10, 2, 20]
    junction.reset()
    assert next(junction)["x"][0] == 10
    junction.switch = "a"
    assert next(junction)["x"][0] == 3


def test_the_switch_and_positions_are_state():
    def make():
        return SwitchJunction(components={"a": rows(1, 2, 3), "b": rows(10, 20)})

    junction, other = make(), make()
    next(junction)
    junction.switch = "b"
    next(junction)
    other.set_state(junction.get_state())

    assert other.switch == "b" and next(other)["x"][0] == 20
    other.switch = "a"
    assert next(other)["x"][0] == 2
    with pytest.raises(StateError, match="has no 'c'"):
        other.set_state({"internal": {"input_positions": {}, "switch": "c"}})


def test_a_switched_pipeline_resumes_exactly():
    check_resume(make_switch, fresh_process=False)


def make_switch():
    return SwitchJunction(components=sources(), switch="b")


def test_an_unknown_component_cannot_be_switched_to():
    with pytest.raises(KeyError, match="SwitchJunction has no component 'trian'; did you mean 'train'"):
        SwitchJunction(components={"train": rows(1)}, switch="trian")
    with pytest.raises(KeyError, match="has no components to route calls to"):
        SwitchJunction().route  # noqa: B018


def test_a_switch_implements_what_its_route_does():
    junction = SwitchJunction(components={"data": rows(1, 2), "endless": Pipe(input=Countdown(3)), "model": Model()})

    assert implements(junction, "__getitem__") and implements(junction, "__len__")
    assert implements(junction, "reset") and not implements(junction, "__call__")
    assert junction.batches_per_epoch == 2
    junction.switch = "endless"
    assert implements(junction, "__next__") and not implements(junction, "__len__")
    assert not implements(junction, "__getitem__") and junction.batches_per_epoch is None
    junction.switch = "model"
    assert implements(junction, "__call__")


def test_a_switch_is_an_input_like_any_other():
    class Double(Model):
        def forward(self, message):
            return message.map({"x": lambda column: column * 2})

    junction = SwitchJunction(components={"train": rows(1, 2), "test": rows(3)})
    model = Double(input=junction)

    assert read(model) == [2, 4] and model[1]["x"].tolist() == [4] and len(model) == 2
    assert model(rows(5))["x"].tolist() == [10]
    junction.switch = "test"
    assert read(model) == [6]


def test_a_switch_is_always_true():
    assert SwitchJunction(components={"empty": Message()})
