"""Keras on TensorFlow: Model.fit on NumPy arrays, with whatever compilation Keras chooses by itself."""

import keras
import tensorflow as tf

from bench.anchors import CORES
from bench.gate import Gate
from bench.peers import data


def net(kind: str, widths: tuple[int, ...]) -> keras.Sequential:
    def dense(width: int, activation: str = "relu") -> keras.layers.Dense:
        return keras.layers.Dense(width, activation=activation, kernel_initializer="he_normal")

    head = dense(10, "softmax")
    if kind == "mlp":
        return keras.Sequential([keras.Input((784,)), *map(dense, widths), head])
    if kind == "cnn":
        layers = [keras.Input((28, 28, 1))]
        for maps in widths[:2]:
            conv = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
            layers += [keras.layers.Conv2D(maps, 3, **conv), keras.layers.MaxPooling2D(2)]
        return keras.Sequential([*layers, keras.layers.Flatten(), dense(widths[2]), head])
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
    return keras.Sequential([keras.Input((28, 28)), layer(widths[0]), head])


def main() -> None:
    gate = Gate()
    tf.config.threading.set_intra_op_parallelism_threads(CORES)
    anchor, x, y = data.load()
    keras.utils.set_random_seed(0)
    model = net(anchor.kind, anchor.widths)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy")
    shape = {"mlp": (-1, 784), "cnn": (-1, 28, 28, 1)}.get(anchor.kind, (-1, 28, 28))
    after_epoch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: gate.after_epoch())
    keywords = {"batch_size": anchor.rows, "shuffle": anchor.batch != "full", "verbose": 0}
    model.fit(x.reshape(shape), y, epochs=10**6, callbacks=[after_epoch], **keywords)


if __name__ == "__main__":
    main()
