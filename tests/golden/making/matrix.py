"""I5, a matrix of 240 rows for the SVM and for average precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from golden.inputs import made

ROWS, WIDTH, CLASSES = 240, 48, 4
FAR, NEAR, HEIGHT = 900, 450, 40


@made("I5")
def matrix(folder: Path) -> None:
    """Write descriptors.npy (multiples of 1/64), labels.npy and targets.npy (-1, 0, +1).

    Of each class two thirds lie far out in a direction of its own and a third lies the other way,
    so that the means of classes mislead; six directions a class, weaker than the noise, tell it
    from the rest. So a small C is wrong, a large one learns the noise, and the best lies between.
    """
    random = np.random.RandomState(5)
    rows = np.arange(ROWS)
    labels, misled = rows % CLASSES, (rows // CLASSES) % 3 == 0
    numbers = random.randint(-64, 65, (ROWS, WIDTH))
    for c in range(CLASSES):
        mine = labels == c
        numbers[mine, c] += np.where(misled[mine], -NEAR, FAR)
        numbers[mine, 4 + 6 * c : 10 + 6 * c] += HEIGHT
    columns = np.arange(CLASSES)
    positive = labels[:, None] == columns
    difficult = ~positive & ((7 * rows[:, None] + 3 * columns) % 10 == 0)
    targets = np.where(positive, 1, np.where(difficult, 0, -1))
    np.save(folder / "descriptors.npy", numbers / 64.0)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "targets.npy", targets.astype(np.int8))
