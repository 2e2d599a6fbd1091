"""The parts of `benchmarks.bench_failover`; the chaos suite asks and compares with them too."""
