"""The program ``mri-sr``: its commands, and what finds, runs and records cases."""
