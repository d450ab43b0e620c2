"""Settings of descriptors: what is refused, and what stands over what."""

from __future__ import annotations

import pytest
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
    ("wrong", "said"),
    [
        ({"nets": ("D", "D")}, "one of them twice"),
        ({"Q": (256, 384, 256)}, "one of them twice"),
        ({"layers": ()}, "at least 1 item"),
        ({"nets": ("D", "E", "A"), "weights": ("d.pth", "e.pth")}, "NET=FILE for each"),
        ({"aggregate": "mean"}, "'average', 'max' or 'stack'"),
        ({"normalize": "l1"}, "'descriptor', 'locations' or 'none'"),
        ({"views": ("box", "crop")}, "'image' or 'box'"),
        ({"power": 0}, "greater than 0"),
        ({"power": 1.5}, "less than or equal to 1"),
        ({"scales": (256,)}, "Extra inputs"),
    ],
)
def test_what_no_descriptor_can_be_is_refused(wrong: dict[str, object], said: str) -> None:
    """Each wrong setting is named, with what would be right."""
    with pytest.raises(ValidationError, match=said):
        Features(**wrong)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Merging, {"match": "overfeat", "threshold": float("inf")}),
        (Training, {"learning_rate": float("inf")}),
        (Training, {"weight_decay": float("nan")}),
        (SVM, {"C": (1.0, float("inf"))}),
    ],
)
def test_no_number_is_infinite(kind: type[Settings], wrong: dict[str, object]) -> None:
    """Of no setting: JSON has no such number, and nothing is computed by it."""
    with pytest.raises(ValidationError, match="finite number"):
        kind(**wrong)


def test_one_source_serves_all_nets_or_each_has_its_own() -> None:
    """What is written for a net goes before what is written for all."""
    assert Features(nets=("D", "E"), weights="authors").weights_of("E") == "authors"
    own = Features(nets=("E", "D"), weights=("E=e.pth", "d.pth"))
    assert (own.weights_of("D"), own.weights_of("E")) == ("d.pth", "e.pth")


def test_what_is_given_goes_over_what_was_set() -> None:
    """None says nothing, a list may stand for a tuple, and a wrong value is still refused."""
    base = Features(nets=("D", "E"), weights=("D=d.pth", "E=e.pth"), power=0.5, flip=False)
    assert base.but() == base
    other = base.but(Q=[16, 24], power=None, flip=True, views=None)
    assert other == base.model_copy(update={"Q": (16, 24), "flip": True})
    with pytest.raises(ParameterError, match="NET=FILE for each"):
        base.but(nets=["A", "B", "D"])


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
    ("wrong", "said"),
    [
        ({"locations": "l1"}, "'raw' or 'l2'. Got 'l1'"),
        ({"precision": "fp8"}, "'bf16' or 'fp16'. Got 'fp8'"),
        ({"layers": ()}, "a list of at least 1"),
        ({"layer": "fc7"}, "Extraction has no setting 'layer', the nearest is 'layers'"),
        ({"size": 7}, "Extraction has no setting 'size', only exif, layers, pool, flip, net"),
    ],
)
def test_a_wrong_setting_of_an_extraction_is_named(wrong: dict[str, object], said: str) -> None:
    """With its choices."""
    with pytest.raises(ParameterError, match=said):
        Extraction().but(**wrong)
