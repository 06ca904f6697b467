"""Benchmarks: each module but `config` and `measurement` is a measure, whose `run` takes a BenchConfig."""
