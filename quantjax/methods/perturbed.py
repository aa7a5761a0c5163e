"""Methods that move the image a little towards the inliers before they score it: they need the network's gradient."""

from __future__ import annotations

from quantjax import scores
from quantjax.methods.base import Classify, Fitted, Method, Settings, TrainingRows, View
from quantjax.methods.logits import with_form
from quantjax.types import Array, PyTree


def perturbed(method: Method, *, epsilon: float, source: str) -> Method:
    """`method` scored at the image after a step of size epsilon (in units of pixels in [0, 1]) that lowers its score.

    It is called `<name>_perturbed` and fitted as `method` is. The step is that of Lee et al. (NeurIPS 2018), 2.2.
    """

    def score(settings: Settings, params: PyTree, view: View) -> Array:
        classify, images = _network(view)

        def after(moved: Array) -> Array:
            return method.score(_own(settings), params, View(classify(moved)))

        return scores.perturbed(after, images, epsilon=settings["epsilon"], std=view.std)

    def fit(rows: TrainingRows, settings: Settings) -> Fitted:
        fitted = method.fit(rows, _own(settings))
        return fitted._replace(settings={**fitted.settings, "epsilon": settings["epsilon"]})

    def template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
        return method.template(_own(settings), dimension, num_classes)

    return method._replace(
        name=f"{method.name}_perturbed",
        reads=(*method.reads, "images"),
        score=score,
        defaults={**method.defaults, "epsilon": epsilon},
        source=source,
        fit=fit,
        template=template,
        score_settings=None if method.score_settings is None else (*method.score_settings, "epsilon"),
    )


def _own(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if key != "epsilon"}


def _odin(settings: Settings, params: PyTree, view: View) -> Array:
    classify, images = _network(view)
    return scores.odin(lambda x: classify(x).logits, images, std=view.std, **with_form(settings))


def _network(view: View) -> tuple[Classify, Array]:
    if view.classify is None or view.images is None:
        raise ValueError("a perturbed score needs the images and the classifier in its view, got the output alone")
    return view.classify, view.images


METHODS = (
    Method(
        "odin",
        "Liang et al., ICLR 2018, eq. 1 and 2",
        ("logits", "images"),
        _odin,
        defaults={"temperature": 1000.0, "epsilon": 0.0048, "form": "log_odds"},
        source="QuantOD's tables; form as msp",
    ),
)
