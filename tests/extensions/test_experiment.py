"""An experiment's folder: made once, recorded by itself, loaded anywhere, and nothing in it replaced unasked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fireworks.extensions.experiment import Experiment, load_experiment


def test_each_experiment_of_a_name_gets_the_next_number(tmp_path):
    made = []
    for _ in range(3):
        with Experiment("xmen", tmp_path) as experiment:
            made.append(experiment)

    assert [Path(experiment.save_path).name for experiment in made] == ["xmen_0", "xmen_1", "xmen_2"]
    assert [experiment.iteration for experiment in made] == [0, 1, 2]
    assert made[0].db_path == str(tmp_path)


def test_numbers_go_on_after_a_deleted_experiment_and_past_names_that_only_look_alike(tmp_path):
    for name in ["xmen_3", "xmen_x", "xmen_", "xmen_10_old", "xmen2_50", "xmen_²"]:
        (tmp_path / name).mkdir()

    with Experiment("xmen", tmp_path) as experiment:
        assert experiment.iteration == 4


def test_a_loaded_experiment_has_name_iteration_description_and_timestamp(tmp_path):
    with Experiment("xmen", tmp_path, "mutants") as experiment:
        started = experiment.timestamp

    loaded = load_experiment(experiment.save_path)

    assert (loaded.name, loaded.iteration, loaded.description, loaded.timestamp) == ("xmen", 0, "mutants", started)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    assert (loaded.save_path, loaded.db_path) == (experiment.save_path, str(tmp_path))
