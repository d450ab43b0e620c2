"""Rows of the commands of features and linear SVMs: extract, svm, run, predict, explain."""

from __future__ import annotations

from promises.option_row import EFFECT, FLAG, FREE, PRINTED, images, rows, working

CLUSTER = [
    ("--engine", "--engine ray", "network.self.execution.engine", "ray", "--engine spark"),
    (
        "--address",
        "--engine ray --address H:6379",
        "network.self.execution.address",
        "H:6379",
        FREE,
    ),
]
LAYERS = [
    ("--net", "--net D --net E", "network.features.nets", ["D", "E"], "--net F"),
    ("--layer", "--layer fc6 --layer pool5", "network.features.layers", ["fc6", "pool5"],
     "--layer conv9_9"),
    ("--Q", "--Q 64 --Q 96", "network.features.Q", [64, 96], "--Q 0"),
    ("--weights", "--weights authors", "load.weights", "authors", "--weights imagenet → 4"),
    ("--quality", "--quality fast", "network.features.Q", [128], "--quality good"),
    ("--flip", "--no-flip", "DenseExtractor.extraction.flip", False, FLAG),
    ("--pixels", "--weights weights.safetensors --pixels caffe", "load.pixels", "caffe",
     "--pixels rgb"),
    ("--pool", "--pool max", "DenseExtractor.extraction.pool", "max", "--pool median"),
    ("--exif", "--ignore-exif", "DenseExtractor.extraction.exif", False, FLAG),
]  # fmt: skip
EXTRACT = rows(
    "extract",
    "photos",
    ("IMAGES", "others photos", "find_images.sources", ["others", "photos"], FREE),
    ("--relative-to", "--relative-to .", "find_images.relative_to", ".", FREE),
    ("--path-column", "columns.csv --path-column file", "find_images.path_column", "file",
     "--path-column file"),
    ("--label-column", "columns.csv --label-column kind", "find_images.label_column", "kind",
     "--label-column kind"),
    ("--out", "--out kept", "FeatureStore.path", "kept", FREE),
    ("--force", "--force", "Target.force", True, FLAG),
    *LAYERS,
    (
        "--normalize",
        "--normalize locations",
        "DenseExtractor.extraction.locations",
        "l2",
        "--normalize l1",
    ),
    ("--dtype", "--dtype float16", "FeatureStore.dtype", "float16", "--dtype int8"),
    *working("extract"),
    ("--shard", "--shard 2/2", "extract.share", [2, 2], "--shard 3/2"),
    *CLUSTER,
    *PRINTED,
)  # fmt: skip
FEATURES = [
    *LAYERS,
    ("--aggregate", "--aggregate stack", "describe.features.aggregate", "stack",
     "--aggregate mean"),
    ("--normalize", "--normalize locations", "DenseExtractor.extraction.locations", "l2",
     "--normalize l1"),
    ("--power", "--power 0.7", "describe.features.power", 0.7, "--power 2"),
    ("--view", "--view box --view image", "describe.features.views", ["box", "image"],
     "--view left"),
]  # fmt: skip
JOBS = [
    ("--jobs", "--jobs 2", "evaluate.n_jobs", 2, "--jobs 0"),
]  # fmt: skip
DATASET = [
    ("--root", "--root there", "open_dataset.root", "there", FREE),
    ("--allow-partial", "--allow-partial", "open_dataset.allow_partial", True, FLAG),
    ("--features", "--features kept", "describe.folder", "kept", FREE),
]
REPORT = [
    ("--report", "--report r.html", "write_report.target", "r.html", FREE),
    ("--evidence", "--report r.html --no-evidence", "write_report.evidence", False, FLAG),
    ("--submission", "--submission s", "submit.folder", "s", FREE),
]
SVM = [
    *rows(
        "svm",
        "--dataset classes",
        ("--dataset", "--dataset more", "open_dataset.name", "more", FREE),
        ("--path-column", "--dataset columns.csv --path-column file", "open_dataset.path_column",
         "file", FREE),
        ("--label-column", "--dataset columns.csv --label-column kind",
         "open_dataset.label_column", "kind", FREE),
        ("--deduplicate", "--deduplicate", "describe.deduplicate", True, FLAG),
        *DATASET,
        *FEATURES,
        ("--loss", "--loss squared_hinge", "evaluate.svm.loss", "squared_hinge", "--loss log"),
        ("--solver", "--solver stream", "evaluate.svm.solver", "stream", "--solver sag"),
        ("--class-weight", "--class-weight balanced", "evaluate.svm.class_weight", "balanced",
         "--class-weight even"),
        ("--C", "--C 1 --C 10", "evaluate.svm.C", [1.0, 10.0], "--C 0"),
        ("--save", "--save m", "save.path", "m", FREE),
        *REPORT,
        *working("describe.execution"),
        *CLUSTER,
        *JOBS,
        *PRINTED,
    ),
    *rows(
        "svm",
        "--dataset voc2007",
        ("--shared-C", "--shared-C", "evaluate.svm.shared_C", True, FLAG),
        ("--c-split", "--c-split cv3", "evaluate.svm.c_split", "cv3", "--c-split cv5"),
        ("--difficult", "--difficult negative", "evaluate.svm.difficult", "negative",
         "--difficult keep"),
    ),
]  # fmt: skip
RUN = [
    *rows(
        "run",
        "table.toml",
        ("RECIPE", "embedded-fast", "open_dataset.name", "sample", FREE),
        ("--set", "--set features.Q=[64,96]", "describe.features.Q", [64, 96],
         "--set features.Q=0"),
        ("--dataset", "--dataset more", "open_dataset.name", "more", FREE),
        *DATASET,
        ("--weights", "--weights authors", "load.weights", "authors", "--weights imagenet → 4"),
        *REPORT,
        *working("describe.execution"),
        *CLUSTER,
        *JOBS,
        *PRINTED,
    ),
    *rows(
        "run",
        "table04-multi-scale --data colours",
        ("--data", "--data others", "open_ilsvrc.root", "others", FREE),
        ("--allow-partial", "--allow-partial", "open_ilsvrc.allow_partial", True, FLAG),
        ("--runs", "--runs there", "classify_rows.run.runs", "there", FREE),
        ("--weights", "--weights d-256=w.pth", "classify_rows.run.weights", {"d-256": "w.pth"},
         "--weights z-256=w.pth"),
        ("--features", "--features kept", "classify_rows.run.folder", "kept", FREE),
        *working("classify_rows.run.extract.keywords"),
        *CLUSTER,
    ),
    *rows(
        "run",
        "table09-localisation --data colours",
        ("--boxes", "--boxes more", "open_boxset.boxes", ["more"], FREE),
    ),
    *rows(
        "run",
        "chain.toml --data classes",
        ("--data", "--data more", "open_trainset.root", "more", FREE),
        ("--out", "--out there", "train_chain.out", "there", FREE),
        ("--val", "--val more", "open_trainset.val", "more", FREE),
        ("--val-fraction", "--val-fraction 0.5", "open_trainset.val_fraction", 0.5,
         "--val-fraction 2"),
        ("--tensorboard", "--tensorboard", "MonitoredTrainer.tensorboard", True, FLAG),
        ("--device", "--device cuda:1", "MonitoredTrainer.engine.device", "cuda:1", "--device tpu"),
        ("--precision", "--precision bf16", "MonitoredTrainer.engine.precision", "bf16",
         "--precision fp8"),
        ("--workers", "--workers 3", "MonitoredTrainer.engine.workers", 3, "--workers 0"),
        ("--micro", "--micro 3", "MonitoredTrainer.engine.micro", 3, "--micro 0"),
        ("--compile", "--compile", "MonitoredTrainer.engine.compile", True, FLAG),
    ),
]  # fmt: skip
PREDICT = rows(
    "predict",
    "model photos",
    ("MODEL", "model.safetensors photos", "load.path", "model.safetensors", FREE),
    ("IMAGES", "model others photos", "find_images.sources", ["others", "photos"], FREE),
    ("--relative-to", "--relative-to .", "find_images.relative_to", ".", FREE),
    ("--path-column", "columns.csv --path-column file", "find_images.path_column", "file",
     "--path-column file"),
    ("--weights", "--weights w.pth", "model_extractors.weights", ["w.pth"],
     "--weights a.pth --weights b.pth"),
    ("--top", "--top 2", EFFECT, None, "--top 0"),
    ("--csv", "--csv t.csv", EFFECT, None, FREE),
    ("--device", "--device cuda:1", "model_extractors.device", "cuda:1", "--device tpu"),
    *images("predict"),
    *PRINTED,
)  # fmt: skip
EXPLAIN = rows(
    "explain",
    "model photos",
    ("MODEL", "model.safetensors photos", "load.path", "model.safetensors", FREE),
    ("IMAGES", "model others photos", "find_images.sources", ["others", "photos"], FREE),
    ("--relative-to", "--relative-to .", "find_images.relative_to", ".", FREE),
    ("--path-column", "columns.csv --path-column file", "find_images.path_column", "file",
     "--path-column file"),
    ("--class", "--class cat", "explain.classes", ["cat"], "--class cow"),
    ("--out", "--out maps", EFFECT, None, FREE),
    ("--weights", "--weights w.pth", "model_extractors.weights", ["w.pth"],
     "--weights a.pth --weights b.pth"),
    ("--csv", "--csv t.csv", EFFECT, None, FREE),
    ("--device", "--device cuda:1", "model_extractors.device", "cuda:1", "--device tpu"),
    *PRINTED,
)  # fmt: skip

FEATURES_AND_SVMS = [*EXTRACT, *SVM, *RUN, *PREDICT, *EXPLAIN]
