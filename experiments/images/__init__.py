"""The parts of `python -m experiments.quantod`."""
