"""The parts of `benchmarks.bench_soak`."""
