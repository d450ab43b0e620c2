"""Settings of descriptors: what is refused, and what stands over what."""

from __future__ import annotations

import pytest
from helpers.mistakes import refuses
from pydantic import ValidationError

from vggfeat.errors import ParameterError
from vggfeat.settings import SVM, Extraction, Features, Hardware, Merging, Settings, Training


def test_without_settings_it_is_net_D_at_256() -> None:
    """The descriptor of Appendix B: fc7, the mean over locations, mirror image and scales."""
    plain = Features()
    assert (plain.nets, plain.layers, plain.Q) == (("D",), ("fc7",), (256,))
    assert (plain.flip, plain.pool, plain.normalize) == (True, "average", "descriptor")
    assert (plain.aggregate, plain.power, plain.views) == ("average", None, ("image",))


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        (Features, {"nets": ("D", "D")}, "twice"),
        (Features, {"layers": ()}, "at least 1 item"),
        (Features, {"nets": ("D", "E", "A"), "weights": ("d.pth", "e.pth")}, "NET=FILE"),
        (Features, {"scales": (256,)}, "scales"),
        # JSON has no infinite number, and nothing is computed by it.
        (Merging, {"match": "overfeat", "threshold": float("inf")}, "finite number"),
        (Training, {"learning_rate": float("inf")}, "finite number"),
        (Training, {"weight_decay": float("nan")}, "finite number"),
        (SVM, {"C": (1.0, float("inf"))}, "finite number"),
    ],
)
def test_what_no_setting_can_be_is_refused(
    kind: type[Settings], wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        kind(**wrong)


def test_one_source_serves_all_nets_or_each_has_its_own() -> None:
    """What is written for a net goes before what is written for all."""
    assert Features(nets=("D", "E"), weights="authors").weights_of("E") == "authors"
    own = Features(nets=("E", "D"), weights=("E=e.pth", "d.pth"))
    assert (own.weights_of("D"), own.weights_of("E")) == ("d.pth", "e.pth")


def test_nets_are_known_by_the_names_that_others_give_them() -> None:
    """By the number of layers with weights, with or without a hyphen, also before a file."""
    features = Features(nets=("vgg16", "VGG-19"), weights=("VGG_16=d.pth", "vgg16.pth"))
    assert features.nets == ("D", "E")
    assert (features.weights_of("D"), features.weights_of("E")) == ("d.pth", "vgg16.pth")
    assert (Extraction(net="vgg13").net, Training(net="VGG11").net) == ("B", "A")
    with pytest.raises(ValidationError, match="twice"):
        Features(nets=("D", "vgg16"))


def test_what_is_given_goes_over_what_was_set() -> None:
    """None says nothing, a list may stand for a tuple, and a wrong value is still refused."""
    base = Features(nets=("D", "E"), weights=("D=d.pth", "E=e.pth"), power=0.5, flip=False)
    assert base.but() == base
    other = base.but(Q=[16, 24], power=None, flip=True, views=None)
    assert other == base.model_copy(update={"Q": (16, 24), "flip": True})
    refuses(lambda: base.but(nets=["A", "B", "D"]), ParameterError, ["NET=FILE"])
    assert SVM(loss="hinge").but(C=1.0).model_fields_set == {"loss", "C"}  # as if typed at once


def test_a_net_has_its_share_of_the_features() -> None:
    """Its own weights, and locations as the normalisation asks; what is left is the default."""
    features = Features(
        nets=("D", "E"), weights=("d.pth", "E=e.pth"), layers=("pool5", "fc7"), flip=False,
        normalize="locations", pool="average+max", exif=False,
    )  # fmt: skip
    assert features.of("E") == Extraction(
        net="E", weights="e.pth", layers=("pool5", "fc7"), flip=False, locations="l2",
        pool="average+max", exif=False,
    )  # fmt: skip
    assert Features().of("D") == Extraction()
    assert features.of("E").pools == ("average", "max")


@pytest.mark.parametrize("model", [Features, Extraction, Hardware])
def test_every_setting_has_a_help_text_and_a_default(model: type[Features]) -> None:
    """Nothing has to be typed, and everything is explained."""
    assert model() == model()
    assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"locations": "l1"}, ["'raw'", "'l2'", "'l1'"]),
        ({"layers": ()}, ["layers", "at least 1"]),
        ({"layer": "fc7"}, ["'layer'", "'layers'"]),
        ({"size": 7}, ["'size'", "exif, layers, pool"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(
    wrong: dict[str, object], named: list[str]
) -> None:
    refuses(lambda: Extraction().but(**wrong), ParameterError, named)
