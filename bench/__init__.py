"""The benchmark of atelier's training path against Keras, scikit-learn, Lightning and a DataLoader loop: make bench."""
