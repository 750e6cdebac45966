"""The foundations from their equations, in NumPy float64: to be read and checked, not to train nets with.

activations -> backprop (any number of layers) -> two_layer (the five steps of a lecture); optimizers stands alone;
cells: recurrent nets, GRU and LSTM, through time; inference: a trained net from a text file.
"""
