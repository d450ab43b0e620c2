"""Every option of every command: a value of its own, where it must arrive, and a wrong value.

One row an option: what a user reads, the words that are typed, the call and the argument where the
value must arrive (see `seams`), that value as plain lists and texts, and a wrong value. The words
follow those of the group's base; an argument's words replace them.
"""

from __future__ import annotations

from promises.options_of_features import FEATURES_AND_SVMS
from promises.options_of_files import FILES
from promises.options_of_networks import WHOLE_NETWORKS

ROWS = [*FEATURES_AND_SVMS, *WHOLE_NETWORKS, *FILES]
_CARD = "the data set's card has the other settings, and is opened with its images"
_ITSELF = "what is called refuses it before it reads"
AFTER_READING = {
    **{("svm", option): _CARD for option in ("--net", "--layer", "--pool", "--weights")},
    **{(command, "--weights"): _ITSELF for command in ("extract", "run", "classify")},
    **{(command, "--val-fraction"): _ITSELF for command in ("run", "train")},
    ("localize train", "--class"): "the data have the classes",
}
"""Options that are refused only when something large was opened, and why."""
TOGETHER = {
    "train --data classes --out a --step 30 --patience 9": ("--patience", "--step"),
    "localize train --data VOC2007 --out a --init weights.safetensors --net E": ("--net", "net D"),
    "extract photos --address H:6379": ("--address", "--engine ray"),
    "svm --dataset classes --address H:6379": ("--address", "--engine ray"),
    "classify photos --grid 3": ("--grid", "--mode dense"),
    "classify photos --Q 256 --multi-scale": ("--multi-scale", "--Q"),
    "classify photos --mode multicrop --locations posteriors": ("--locations", "--mode multicrop"),
    "classify --data colours --relative-to .": ("--relative-to", "--data"),
    "store export features f.csv --raw --power 0.5": ("--raw", "--power"),
}
"""Options of which one would say nothing beside the other, and what the refusal names."""
