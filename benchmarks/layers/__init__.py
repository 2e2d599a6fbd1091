"""The parts of `benchmarks.bench_layers`."""
