"""The machine that a run is on: threads, memory, processes, progress."""
