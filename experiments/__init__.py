"""The experiments: the only place that names concrete choices, flags and clocks."""
