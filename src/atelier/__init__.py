"""atelier: a bench for reproducible studies of neural network families."""
