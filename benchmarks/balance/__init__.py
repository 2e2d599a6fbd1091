"""The parts of `benchmarks.bench_balance`."""
