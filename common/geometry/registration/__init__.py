"""How stacks and contrasts of one person lie on each other, and whether they are of one person."""
