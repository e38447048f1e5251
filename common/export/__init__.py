"""A bundle out of the repository: its code, its weights in the forms that clients read, one zip."""
