"""Means, intervals, exact tests and the metrics of a model: values in, values out."""
