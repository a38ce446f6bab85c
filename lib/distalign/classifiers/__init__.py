"""Face attribute classifiers: models, training, evaluation, and a reader that is not trained at all."""

from distalign.classifiers.models import Classifier, build_classifier, load_classifier, save_classifier

__all__ = ["Classifier", "build_classifier", "load_classifier", "save_classifier"]
