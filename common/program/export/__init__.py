"""Export of a bundle: its code, its weights in the formats of clients, and one zip."""
