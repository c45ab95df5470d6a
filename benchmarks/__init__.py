"""Benchmarks: Troupe and other servers, compared by `make bench` (docs/performance.md)."""
