"""The parts of `bench_life.py`: what is measured, in which process, and what is printed of it."""
