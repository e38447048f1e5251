"""CT as a source of thin slices, and MR in thick ones."""
