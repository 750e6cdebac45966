"""Data sets: where their files come from, how they are read, and the store that training and evaluation read."""
