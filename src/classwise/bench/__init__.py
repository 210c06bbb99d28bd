"""What bounds a run, and what would help: `bench` times its stages, `bench_text` and `print_bench` show them."""

from classwise.bench.result import Bench, Stage
from classwise.bench.stages import bench
from classwise.bench.text import bench_text, print_bench

__all__ = ["Bench", "Stage", "bench", "bench_text", "print_bench"]
