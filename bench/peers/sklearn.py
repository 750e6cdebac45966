"""scikit-learn: MLPClassifier.fit."""

from sklearn.neural_network import MLPClassifier

from bench.gate import Gate
from bench.peers import data


class Timed(MLPClassifier):
    """MLPClassifier calls the method below at the end of every epoch and has no public callback."""

    def _update_no_improvement_count(self, *arguments) -> None:
        super()._update_no_improvement_count(*arguments)
        self.gate.after_epoch()


def main() -> None:
    gate = Gate()
    anchor, x, y = data.load()
    never = {"max_iter": 10**6, "n_iter_no_change": 10**6, "tol": 0.0, "alpha": 0.0}
    model = Timed(anchor.widths, batch_size=anchor.rows, shuffle=anchor.batch != "full", random_state=0, **never)
    model.gate = gate
    model.fit(x.reshape(len(x), -1), y)


if __name__ == "__main__":
    main()
