"""Read, write and name files and images."""
