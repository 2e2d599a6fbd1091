"""The parts of `benchmarks.bench_placement` and `benchmarks.calibrate`."""
