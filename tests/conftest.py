"""For all tests: torch on one thread, since two cores are shared with the processes under test."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
