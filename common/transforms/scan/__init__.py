"""From a file to a volume that a network reads, checked, and back."""
