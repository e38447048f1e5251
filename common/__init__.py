"""What the bundles share: networks, losses, training, inference and commands."""

__version__ = "0.2.0"
