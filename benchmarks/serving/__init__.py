"""The parts of `benchmarks.bench_serving`."""
