"""Recipes: one file says what is run on which data, and what the paper has for it."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from vggfeat._io.assets import read_toml, shared
from vggfeat.errors import DataError, DataNotFound, ParameterError, WeightsNotFound
from vggfeat.nets.config import DEEPER, TABLE_1, layers_of
from vggfeat.settings import (
    SVM,
    UPRIGHT,
    Decoding,
    Features,
    Merging,
    Mode,
    Regression,
    Settings,
    Training,
    check_each,
    checked,
    data_error,
)

BEST = "best.safetensors"
"""The file of a training run with the weights of its best epoch."""
Percent = Annotated[float, Field(ge=0, le=100)]
ErrorPair = tuple[Percent, Percent]
"""Top-1 and top-5 error in validation, in percent."""


class SVMRow(Settings):
    """One line of a table: settings that are not the recipe's, and the paper's figure.

    Parameters
    ----------
    name : str
        As in the paper's table; the nets by default.
    features : dict
        Settings of :class:`~vggfeat.settings.Features` that differ.
    expected : float, optional
        The paper's figure, in percent.
    """

    name: str = ""
    features: dict[str, Any] = Field(default={})
    expected: float | None = None


class ResolvedRow(NamedTuple):
    """A row with all of its settings."""

    name: str
    features: Features
    expected: float | None


class SVMRecipe(Settings):
    """Features and linear SVMs: a data set, what describes its images, the classifier, the rows.

    Parameters
    ----------
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    dataset : str
        Name of a card.
    features : Features
        What describes the images.
    classifier : SVM
        How C is chosen, and with which loss.
    rows : tuple of SVMRow
        The lines of the table; one that adds nothing by default.

    Examples
    --------
    >>> recipe = open_svm_recipe("table11-caltech101")
    >>> [(row.name, row.features.nets, row.expected) for row in recipe.table()]
    [('D', ('D',), 91.8), ('E', ('E',), 92.3), ('D & E', ('D', 'E'), 92.7)]
    """

    name: str = ""
    title: str = ""
    dataset: str
    features: Features = Features()
    classifier: SVM = SVM()
    rows: tuple[SVMRow, ...] = Field(default=(SVMRow(),), min_length=1)

    @model_validator(mode="after")
    def _rows_hold(self) -> Self:
        self.table()
        return self

    def table(self) -> list[ResolvedRow]:
        """Return the rows, each with all of its settings; of equal names the second has a (2)."""
        rows: list[ResolvedRow] = []
        seen: Counter[str] = Counter()
        for row in self.rows:
            features = self.features.but(**row.features)
            name = row.name or " & ".join(features.nets)
            seen[name] += 1
            name = f"{name} ({seen[name]})" if seen[name] > 1 else name
            rows.append(ResolvedRow(name, features, row.expected))
        return rows


class TrainedNet(Settings):
    """A trained net that a table needs.

    Parameters
    ----------
    net : str
        Configuration of Table 1.
    S : int or (int, int)
        Its training scale.
    chain : str
        The recipe that trains it, of which the net's name is a link; none for a net without one.
    weights : str
        What stands in where it was not trained here; nothing by default.
    """

    net: str
    S: int | tuple[int, int]
    chain: str = ""
    weights: str = ""

    @field_validator("net")
    @classmethod
    def _of_table_1(cls, net: str) -> str:
        if net not in TABLE_1:
            raise ValueError(f"{net!r} is none of {', '.join(TABLE_1)}")
        return net

    def training_command(self, name: str, runs: Path) -> str:
        """Write the command that trains it into its folder of `runs`."""
        if self.chain:
            return f"vggfeat run {self.chain} --out {runs} --data ILSVRC_ROOT"
        scales = " ".join(f"--S {S}" for S in ([self.S] if isinstance(self.S, int) else self.S))
        return f"vggfeat train --net {self.net} {scales} --out {runs / name} --data ILSVRC_ROOT"


class BoxNet(TrainedNet):
    """A net that predicts boxes (Appendix A).

    Parameters
    ----------
    init : str
        The net of the recipe's that it begins from.
    regression : {"pcr", "scr"}
        A box for each class, or one for all.
    freeze : {"none", "conv"}
        Whether all layers are fine-tuned, or the fully connected ones alone.
    """

    init: str
    regression: Regression = "pcr"
    freeze: Literal["none", "conv"] = "none"

    def training_command(self, name: str, runs: Path) -> str:
        """Write the command that trains it into its folder of `runs`."""
        words = f"--init {runs / self.init / BEST} --S {self.S}"
        words += " --regression scr" if self.regression == "scr" else ""
        words += " --freeze conv" if self.freeze == "conv" else ""
        # ILSVRC states the sizes of files as they lie there.
        words += f" --out {runs / name} --data ILSVRC_ROOT --ignore-exif"
        return f"vggfeat localize train {words}"


def find_weights(
    nets: Mapping[str, TrainedNet], name: str, runs: Path, given: Mapping[str, str]
) -> str:
    """Find the weights of a recipe's net: those given, those trained here, or what stands in.

    Parameters
    ----------
    nets : mapping of str to TrainedNet
        The recipe's.
    name : str
        One of them.
    runs : Path
        Where trained nets lie, as ``vggfeat run train-… --out`` leaves them.
    given : mapping
        Sources or files by the net's name.

    Raises
    ------
    WeightsNotFound
        Saying how to train it.
    """
    if name in given:
        return given[name]
    best = runs / name / BEST
    if best.is_file():
        return str(best)
    if nets[name].weights:
        return nets[name].weights
    raise WeightsNotFound(
        f"{name} is not trained: there is no {best}, and nobody has published it. Train it: "
        f"{nets[name].training_command(name, runs)}"
    )


class Use(Settings):
    """A trained net at some test scales."""

    net: str
    Q: tuple[int, ...] = Field(min_length=1)


class ClassificationRow(Settings):
    """One line of a table of classification errors.

    Parameters
    ----------
    name : str
        As the paper has it.
    uses : tuple of Use
        The nets whose posteriors are averaged.
    mode : {"dense", "multicrop", "both"}
        How each is evaluated.
    paper : (float, float), optional
        Its top-1 and top-5 error in validation, in percent.
    """

    name: str
    uses: tuple[Use, ...] = Field(min_length=1)
    mode: Mode = "dense"
    paper: ErrorPair | None = None


class ClassificationRecipe(Settings):
    """Classification errors of whole networks on ILSVRC-2012's validation images.

    Parameters
    ----------
    protocol : {"classification"}
        Which kind of recipe this is.
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    nets : mapping of str to TrainedNet
        By the names of their training runs.
    rows : tuple of ClassificationRow
    """

    protocol: Literal["classification"]
    name: str = ""
    title: str = ""
    nets: dict[str, TrainedNet]
    rows: tuple[ClassificationRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _nets_are_there(self) -> Self:
        for row in self.rows:
            _check_uses(row.name, row.uses, self.nets)
        return self


def _check_uses(row: str, uses: Sequence[Use], nets: Mapping[str, TrainedNet]) -> None:
    for use in uses:
        if use.net not in nets:
            raise ValueError(f"{row!r} uses {use.net!r}, which is none of the nets")


class Labels(Settings):
    """The classification system of a table of localisation errors.

    Parameters
    ----------
    uses : tuple of Use
        Nets whose posteriors are averaged: the likeliest classes are an image's labels.
    mode : {"dense", "multicrop", "both"}
        How each is evaluated.
    windows : str
        The net that scores windows.
    """

    uses: tuple[Use, ...] = Field(min_length=1)
    mode: Mode = "dense"
    windows: str


class LocalizationRow(Settings):
    """One line of a table of localisation errors.

    Parameters
    ----------
    name : str
        As the paper has it.
    uses : tuple of Use
        The nets whose boxes are united.
    paper : float, optional
        Its error in validation, in percent.
    """

    name: str
    uses: tuple[Use, ...] = Field(min_length=1)
    paper: Percent | None = None


class OtherSystem(Settings):
    """A line of a table that is another system's, with its error in percent.

    ``unlike`` says why no difference from it means anything, as where it is of test images.
    """

    name: str
    paper: Percent
    unlike: str = ""


class LocalizationRecipe(Settings):
    """Localisation errors on ILSVRC-2012's validation images.

    Parameters
    ----------
    protocol : {"localization"}
        Which kind of recipe this is.
    name : str
        The file's name, without its suffix.
    title : str
        What it reproduces.
    nets : mapping of str to TrainedNet
        Classification nets, by the names of their training runs.
    boxes : mapping of str to BoxNet
        Nets that predict boxes, likewise.
    labels : Labels, optional
        The classification system of protocol 2, whose top-5 error is measured; without one the
        class is given, and the box from the central crop is judged (protocol 1).
    merging : Merging
        How the boxes of windows become one.
    decoding : Decoding
        How images become the pixels that boxes are in. Labels are of upright images, since their
        scores are those of Tables 3 to 7.
    rows : tuple of LocalizationRow
    others : tuple of OtherSystem
        What the paper compares them with.
    """

    protocol: Literal["localization"]
    name: str = ""
    title: str = ""
    nets: dict[str, TrainedNet]
    boxes: dict[str, BoxNet]
    labels: Labels | None = None
    merging: Merging = Merging()
    decoding: Decoding = UPRIGHT
    rows: tuple[LocalizationRow, ...] = Field(min_length=1)
    others: tuple[OtherSystem, ...] = ()

    @property
    def measure(self) -> str:
        """The error of its rows: ``top5`` of protocol 2, or ``central`` of protocol 1."""
        return "top5" if self.labels else "central"

    @model_validator(mode="after")
    def _nets_are_there(self) -> Self:
        for row in self.rows:
            _check_uses(row.name, row.uses, self.boxes)
        for name, net in self.boxes.items():
            if net.init not in self.nets:
                raise ValueError(f"{name!r} begins from {net.init!r}, which is none of the nets")
        if self.labels:
            windows = Use(net=self.labels.windows, Q=(1,))
            _check_uses("labels", (*self.labels.uses, windows), self.nets)
        return self


class ChainLink(Settings):
    """A run of a chain, as its recipe writes it.

    Parameters
    ----------
    name : str
        Of its folder.
    from : str, optional
        The link before it that it begins from; without one its layers are drawn at random.
    training : dict
        Settings of :class:`~vggfeat.settings.Training` that are not the chain's.
    paper : (float, float), optional
        Top-1 and top-5 error of Table 3, in percent.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    origin: str = Field(default="", alias="from")
    training: dict[str, Any] = Field(default={})
    paper: ErrorPair | None = None


class ChainRun(NamedTuple):
    """A link with all of its settings."""

    name: str
    origin: str
    settings: Training
    paper: tuple[float, float] | None


class TrainingRecipe(Settings):
    """A chain of networks that are trained one after another.

    Parameters
    ----------
    name : str
        The file's name, without its suffix.
    title : str
        What it trains.
    training : dict
        Settings that all links share; the paper's where nothing is said.
    links : tuple of ChainLink
        In order.

    Examples
    --------
    >>> chain = TrainingRecipe(links=[
    ...     {"name": "a-256"},
    ...     {"name": "e-256", "from": "a-256", "training": {"net": "E"}},
    ... ])
    >>> [(run.settings.net, run.settings.S, run.origin) for run in chain.runs()]
    [('A', 256, ''), ('E', 256, 'a-256')]
    """

    name: str = ""
    title: str = ""
    training: dict[str, Any] = Field(default={})
    links: tuple[ChainLink, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _links_hold(self) -> Self:
        # All at once, since a wrong last link would otherwise be found after weeks.
        nets: dict[str, str] = {}
        for run in self.runs():
            net = run.settings.net
            layers_of(net)  # which refuses a net that there is not
            if run.name in nets:
                raise ValueError(f"two links are called {run.name!r}")
            if run.origin and run.origin not in nets:
                raise ValueError(f"{run.name} begins from {run.origin!r}, which is no link before")
            before = nets.get(run.origin, net)
            if before != net and not (before == "A" and net in DEEPER):
                raise ValueError(f"{run.name} is net {net}, which cannot begin from net {before}")
            nets[run.name] = net
        return self

    def runs(self) -> list[ChainRun]:
        """Return the links, each with all of its settings."""
        return [
            ChainRun(
                link.name,
                link.origin,
                checked(Training, **{**self.training, **link.training}),
                link.paper,
            )
            for link in self.links
        ]


Recipe = SVMRecipe | ClassificationRecipe | LocalizationRecipe | TrainingRecipe
PARTS: dict[type, dict[str, type[Settings]]] = {
    SVMRecipe: {"features": Features, "classifier": SVM},
    LocalizationRecipe: {"merging": Merging, "decoding": Decoding},
    TrainingRecipe: {"training": Training},
}
"""Settings that `vggfeat run --set` sets, by the kind of the recipe."""


def recipe_names() -> list[str]:
    """Names of the shipped recipes.

    Examples
    --------
    >>> "table11-voc2007" in recipe_names()
    True
    """
    return sorted(path.stem for path in shared("pipelines").glob("*.toml"))


def open_recipe(name: str, typed: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe, or one of your own.

    A recipe that names its ``protocol`` tests whole networks, one with ``links`` trains them, and
    any other is of features and a linear SVM.

    Parameters
    ----------
    name : str
        Name of a shipped recipe, or path of a ``.toml`` file.
    typed : sequence of str
        Settings over the recipe's and over those of its rows or links, as ``features.Q=[256,384]``.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a recipe holds.
    ParameterError
        If a setting is none of the recipe's, or has a value that it cannot have.

    Examples
    --------
    >>> [run.name for run in open_recipe("train-e-jitter").runs()]
    ['a-256', 'e-256', 'e-384', 'e-jitter']
    >>> open_recipe("embedded-fast", ["features.Q=[64,96]"]).table()[0].features.Q
    (64, 96)
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = shared("pipelines") / f"{name}.toml"
    if not path.is_file():
        raise DataNotFound(
            f"There is no recipe {name!r}. Shipped: {', '.join(recipe_names())}. Or name a file "
            "of your own, such as my.toml."
        )
    try:
        kind: type[Recipe] = SVMRecipe
        content = read_toml(path)
        kind = _kind(content)
        recipe = kind(**{"name": path.stem, **content})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise data_error(f"{path} is not a recipe", error, kind) from error
    if not typed:
        return recipe
    settings = _read_settings(recipe, typed)
    try:
        return kind(**{"name": path.stem, **_put_over(content, settings)})
    except ValueError as error:
        words = " ".join(f"--set {word}" for word in typed)
        refused = data_error(f"{recipe.name} with {words}", error, kind)
        raise ParameterError(*refused.lines) from error


def open_svm_recipe(name: str) -> SVMRecipe:
    """Read the recipe of a table of features and linear SVMs.

    Parameters
    ----------
    name : str
        As :func:`open_recipe` takes it.

    Raises
    ------
    DataNotFound
        If there is none of that name.
    DataError
        If it does not hold what a recipe holds, or trains or tests networks.
    """
    recipe = open_recipe(name)
    if not isinstance(recipe, SVMRecipe):
        trains = isinstance(recipe, TrainingRecipe)
        does = "trains networks and has no table" if trains else "tests networks"
        raise DataError(f"{name} {does}. Run it with: vggfeat run {name} --data …")
    return recipe


def _kind(content: Mapping[str, Any]) -> type[Recipe]:
    """Tell the kind of a recipe by its keys."""
    if "protocol" in content:
        kinds: dict[str, type[Recipe]] = {
            "classification": ClassificationRecipe,
            "localization": LocalizationRecipe,
        }
        if (protocol := content["protocol"]) not in kinds:
            raise ValueError(f"protocol must be {' or '.join(map(repr, kinds))}. Got {protocol!r}.")
        return kinds[protocol]
    return TrainingRecipe if "links" in content else SVMRecipe


def _read_settings(recipe: Recipe, typed: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read settings as they are typed, by parts, and check each by itself."""
    parts = PARTS.get(type(recipe), {})
    settings: dict[str, dict[str, Any]] = {}
    for word in typed:
        place, equals, text = word.partition("=")
        part, dot, name = place.strip().partition(".")
        if not (equals and dot):
            raise ParameterError(
                f"--set {word} names no setting. Write part.name=value, as features.Q=[256,384]."
            )
        if part not in parts:
            right = f"has {' and '.join(parts)}" if parts else "tests networks as they are"
            raise ParameterError(
                f"--set {word}: no part is called {part!r}; {recipe.name} {right}."
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:  # a word needs no quotes
            value = text.strip()
        check_each(parts[part], {name: value}, {name: f"--set {place}"})
        settings.setdefault(part, {})[name] = value
    return settings


def _put_over(
    content: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Put settings over a recipe's and over those of each row or link.

    The figures that are expected go: they are those of the recipe's own settings.
    """
    changed = {
        **content,
        **{part: {**content.get(part, {}), **values} for part, values in settings.items()},
    }
    for lines in {"rows", "links"} & set(changed):
        changed[lines] = [
            {name: value for name, value in line.items() if name not in ("expected", "paper")}
            | {part: {**line[part], **values} for part, values in settings.items() if part in line}
            for line in changed[lines]
        ]
    return changed
