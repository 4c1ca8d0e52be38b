"""What an Experiment is made of: names, the record of a run, captured output, metrics, saved objects, databases."""
