"""Rows of the commands of whole networks: classify, fuse, train, localize."""

from __future__ import annotations

from promises.option_row import EFFECT, FLAG, FREE, PRINTED, rows, working

CLASSIFY = rows(
    "classify",
    "photos",
    ("PICTURES", "others photos", "find_pictures.sources", ["others", "photos"], FREE),
    ("--net", "--net E --net D", "network.features.nets", ["E", "D"], "--net F"),
    ("--weights", "--weights authors", "load.weights", "authors", "--weights imagenet → 4"),
    ("--Q", "--Q 64 --Q 96", "score.scales", [64, 96], "--Q 0"),
    ("--mode", "--mode both", "DenseExtractor.extraction.pool", "softmax+crops5", "--mode crops"),
    ("--locations", "--locations posteriors", "DenseExtractor.extraction.pool", "posteriors",
     "--locations all"),
    ("--grid", "--mode multicrop --grid 3", "DenseExtractor.extraction.pool", "crops3",
     "--mode multicrop --grid 0"),
    ("--flip", "--no-flip", "DenseExtractor.extraction.flip", False, FLAG),
    ("--exif", "--ignore-exif", "DenseExtractor.extraction.exif", False, FLAG),
    ("--top", "--top 2", EFFECT, None, "--top 0"),
    ("--out", "--out kept", "score.folder", "kept", FREE),
    ("--csv", "--csv t.csv", EFFECT, None, FREE),
    ("--shard", "--shard 2/2", "score.shard", "2/2", "--shard 3/2"),
    *working("score"),
    *PRINTED,
)  # fmt: skip
CLASSIFY_KNOWN = rows(
    "classify",
    "--data colours",
    ("--data", "--data more", "find_validation.root", "more", FREE),
    ("--results", "--results r", EFFECT, None, FREE),
)
FUSE = rows(
    "fuse",
    "scores-D",
    ("STORES", "scores-D scores-E", "open_scores.path", "scores-E", FREE),
    ("--data", "--data colours", EFFECT, None, FREE),
    ("--Q", "--Q 256", "open_scores.scales", [256], "--Q wide"),
    ("--top", "--top 2", EFFECT, None, "--top 0"),
    ("--out", "--out fused", EFFECT, None, FREE),
    ("--csv", "--csv t.csv", EFFECT, None, FREE),
    ("--results", "--data colours --results r", EFFECT, None, FREE),
    *PRINTED,
)
RECIPE = [
    ("--out", "--out b", "train.out", "b", FREE),
    ("--learning-rate", "--lr 0.5", "train.settings.learning_rate", 0.5, "--learning-rate 0"),
    ("--momentum", "--momentum 0.5", "train.settings.momentum", 0.5, "--momentum 1"),
    ("--weight-decay", "--weight-decay 0.1", "train.settings.weight_decay", 0.1,
     "--weight-decay -1"),
    ("--dropout", "--dropout 0.1", "train.settings.dropout", 0.1, "--dropout 1"),
    ("--epochs", "--epochs 3", "train.settings.epochs", 3, "--epochs 0"),
    ("--patience", "--patience 9", "train.settings.patience", 9, "--patience 0"),
    ("--batch", "--batch 2", "train.settings.batch", 2, "--batch 0"),
    ("--freeze", "--freeze conv", "train.settings.freeze", "conv", "--freeze all"),
    ("--colour-shift", "--no-colour-shift", "train.settings.colour_shift", False, FLAG),
    ("--seed", "--seed 3", "train.settings.seed", 3, "--seed -1"),
    ("--resume", "--resume", "train.resume", True, FLAG),
    ("--tensorboard", "--tensorboard", "Watched.tensorboard", True, FLAG),
    ("--device", "--device cuda:1", "train.engine.device", "cuda:1", "--device tpu"),
    ("--precision", "--precision bf16", "train.engine.precision", "bf16", "--precision fp8"),
    ("--workers", "--workers 3", "train.engine.workers", 3, "--workers -1"),
    ("--micro", "--micro 3", "train.engine.micro", 3, "--micro 0"),
]  # fmt: skip
TRAIN = rows(
    "train",
    "--data classes --out a",
    ("--data", "--data more", "open_trainset.root", "more", FREE),
    ("--net", "--net B", "train.settings.net", "B", "--net F"),
    ("--S", "--S 256 --S 512", "train.settings.S", [256, 512], "--S 100"),
    ("--init", "--init paper", "train.settings.init", "paper", "--init zeros"),
    *RECIPE,
    ("--step", "--step 30 --step 60", "train.settings.steps", [30, 60], "--step 60 --step 30"),
    ("--label-smoothing", "--label-smoothing 0.1", "train.settings.label_smoothing", 0.1,
     "--label-smoothing 1"),
    ("--val", "--val more", "open_trainset.val", "more", FREE),
    ("--val-fraction", "--val-fraction 0.5", "open_trainset.val_fraction", 0.5,
     "--val-fraction 2"),
    ("--compile", "--compile", "train.engine.compile", True, FLAG),
    ("--decoder", "--decoder nvjpeg", "train.engine.decoder", "nvjpeg", "--decoder png"),
    *PRINTED,
)  # fmt: skip
LOCALIZE_TRAIN = rows(
    "localize train",
    "--data VOC2007 --out a",
    ("--data", "--data VOC2012", "open_boxset.root", "VOC2012", FREE),
    ("--init", "--init authors", "load.weights", "authors", "--init zeros"),
    ("--net", "--net E", "train.settings.net", "E", "--net F"),
    ("--S", "--S 384", "train.settings.S", 384, "--S 100"),
    ("--regression", "--regression scr", "BoxRegression.regression", "scr", "--regression one"),
    *RECIPE,
    ("--visible", "--visible 0.25", "BoxRegression.visible", 0.25, "--visible 2"),
    ("--balanced", "--as-it-is", "begun.balanced", False, FLAG),
    ("--class", "--class cat", "open_boxset.classes", ["cat"], "--class cow"),
    ("--boxes", "--boxes VOC2007", "open_boxset.boxes", ["VOC2007"], FREE),
    *PRINTED,
)
MERGING = [
    ("--match", "--match overfeat", "Merging.match", "overfeat", "--match giou"),
    ("--threshold", "--threshold 0.25", "Merging.threshold", 0.25, "--threshold 2"),
    ("--average", "--average score", "Merging.average", "score", "--average mean"),
    ("--device", "--device cuda:1", "Localiser.device", "cuda:1", "--device tpu"),
    ("--precision", "--precision bf16", "Localiser.precision", "bf16", "--precision fp8"),
]
LOCALIZE_PREDICT = rows(
    "localize predict",
    "photos --model boxes.safetensors --class cat",
    ("PICTURES", "others photos --model boxes.safetensors --class cat", "find_pictures.sources",
     ["others", "photos"], FREE),
    ("--model", "--model more", "Localiser.path", "more", FREE),
    ("--Q", "--Q 288 --Q 320", "windows_of.scales", [[288, 320]], "--Q 0"),
    ("--class", "--class dog", "locate.labels", [0, 1], "--class cow"),
    *MERGING,
    ("--out", "--out drawn", EFFECT, None, FREE),
    ("--csv", "--csv t.csv", EFFECT, None, FREE),
    *PRINTED,
)  # fmt: skip
LOCALIZE_LABELS = rows(
    "localize predict",
    "photos --model boxes.safetensors --classifier cats-E.safetensors",
    ("--classifier", "--classifier w.pth", "NetClassifier.weights", "w.pth", FREE),
    ("--top", "--top 2", EFFECT, None, "--top 0"),
)
LOCALIZE_EVALUATE = rows(
    "localize evaluate",
    "--data VOC2007 --model boxes.safetensors",
    ("--data", "--data VOC2012", "open_boxset.root", "VOC2012", FREE),
    ("--model", "--model more", "Localiser.path", "more", FREE),
    ("--classifier", "--classifier w.pth", "NetClassifier.weights", "w.pth", FREE),
    ("--Q", "--Q 288 --Q 320", "judge.scales", [[288, 320]], "--Q 0"),
    ("--labels", "--classifier w.pth --labels scores-D", "StoredLabels.paths", ["scores-D"], FREE),
    ("--boxes", "--boxes VOC2007", "open_boxset.boxes", ["VOC2007"], FREE),
    *MERGING,
    ("--limit", "--limit 2", EFFECT, None, "--limit 0"),
    ("--report", "--report r.html", EFFECT, None, FREE),
    *PRINTED,
)

WHOLE_NETWORKS = [
    *CLASSIFY,
    *CLASSIFY_KNOWN,
    *FUSE,
    *TRAIN,
    *LOCALIZE_TRAIN,
    *LOCALIZE_PREDICT,
    *LOCALIZE_LABELS,
    *LOCALIZE_EVALUATE,
]
