"""Resources of a run: threads, memory, processes and progress."""
