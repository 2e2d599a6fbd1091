"""The parts of `benchmarks.bench_changes`."""
