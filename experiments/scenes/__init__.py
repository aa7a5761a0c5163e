"""The parts of `python -m experiments.uem`."""
