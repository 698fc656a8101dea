"""Benchmarks: what moim costs beside bare Python, bare HTTP, other clients and the bare engine."""
