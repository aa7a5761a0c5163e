"""Record scores and rates of OpenOOD's and pytorch-ood's own programs on one set of arrays.

Run: python tests/golden/make_openood.py CHECKOUT

CHECKOUT is a clone of https://github.com/Jingkang50/OpenOOD, recorded at 3c35632 (after v1.5). Needs torch, faiss-cpu,
libmr, tqdm, pandas, scikit-learn and pytorch-ood 0.4.0. Its postprocessors run as they are, one row of features
standing in for an image and a linear layer for the network; they ask for a GPU, which is answered with the CPU. Their
confidences are stored with the sign turned: higher = more outlying.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_ood
import torch
from pytorch_ood import detector
from pytorch_ood.metrics import OODMetrics

CHECKOUT = Path(sys.argv[1])
K, D, BATCH = 6, 24, 40
SIZES = {"train": 600, "val": 150, "test": 200, "near_a": 120, "near_b": 100, "far_a": 140}

# ---- arrays: features as a ReLU leaves them; near sets lie between classes, the far one elsewhere
rng = np.random.default_rng(5)
centres = rng.uniform(0.0, 2.0, (K, D))
mixing = np.eye(D) + 0.3 * rng.normal(size=(D, D))


def rows(means):
    return np.maximum(means + 0.6 * rng.normal(size=(len(means), D)) @ mixing, 0.0).astype(np.float32)


labels = {name: np.arange(SIZES[name]) % K for name in ("train", "val", "test")}
features = {name: rows(centres[labels[name]]) for name in labels}
for name, share in (("near_a", 0.5), ("near_b", 0.35)):
    first, second = (centres[rng.integers(0, K, SIZES[name])] for _ in range(2))
    features[name] = rows(share * first + (1.0 - share) * second)
features["far_a"] = rows(rng.uniform(0.0, 2.0, (SIZES["far_a"], D)))
design = np.concatenate([features["train"], np.ones((SIZES["train"], 1), np.float32)], 1)
solved = np.linalg.lstsq(design, 7.0 * np.eye(K)[labels["train"]], rcond=None)[0]
head = torch.nn.Linear(D, K)
with torch.no_grad():
    head.weight.copy_(torch.from_numpy(solved[:D].T + 0.1 * rng.normal(size=(K, D))))
    head.bias.copy_(torch.from_numpy(solved[D]))

# ---- a machine that says it has a GPU, and OpenOOD's modules without the packages about them
torch.Tensor.cuda = lambda self, *args, **kwargs: self
torch.nn.Module.cuda = lambda self, *args, **kwargs: self
real_ones = torch.ones
torch.ones = lambda *args, device=None, **kwargs: real_ones(*args, **kwargs)
for name in ("", ".postprocessors", ".networks", ".evaluators", ".utils"):
    package = types.ModuleType(f"openood{name}")
    package.__path__ = [str(CHECKOUT / "openood" / name.strip("."))]
    sys.modules[package.__name__] = package


def of_openood(path, name):
    return getattr(importlib.import_module(f"openood.{path}"), name)


def loader(name):
    own = labels.get(name, np.full(SIZES[name], -1))
    examples = [{"data": torch.from_numpy(row), "label": int(y)} for row, y in zip(features[name], own, strict=True)]
    return torch.utils.data.DataLoader(examples, BATCH)


class Network(torch.nn.Module):
    """The features are the input."""

    def __init__(self):
        super().__init__()
        self.fc = head

    def forward(self, x, return_feature=False, return_feature_list=False):
        return (self.fc(x), x) if return_feature else self.fc(x)

    def get_fc(self):
        return self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy()

    def get_fc_layer(self):
        return self.fc


def settings(**arguments):
    """What a postprocessor reads of its configuration."""
    space = types.SimpleNamespace
    inner = space(postprocessor_args=space(**arguments), postprocessor_sweep={}, APS_mode=False)
    return space(postprocessor=inner, dataset=space(name="here"))


of_openood("postprocessors.info", "num_classes_dict")["here"] = K
METHODS = {  # OpenOOD's name: (module, class, arguments)
    "msp": ("base_postprocessor", "BasePostprocessor", {}),
    "mls": ("maxlogit_postprocessor", "MaxLogitPostprocessor", {}),
    "ebo": ("ebo_postprocessor", "EBOPostprocessor", {"temperature": 1}),
    "gen": ("gen_postprocessor", "GENPostprocessor", {"gamma": 0.1, "M": 100}),
    "temp_scaling": ("temp_scaling_postprocessor", "TemperatureScalingPostprocessor", {}),
    "klm": ("kl_matching_postprocessor", "KLMatchingPostprocessor", {}),
    "openmax": ("openmax_postprocessor", "OpenMax", {}),
    "mds": ("mds_postprocessor", "MDSPostprocessor", {}),
    "rmds": ("rmds_postprocessor", "RMDSPostprocessor", {}),
    "knn": ("knn_postprocessor", "KNNPostprocessor", {"K": 50}),
    "nnguide": ("nnguide_postprocessor", "NNGuidePostprocessor", {"K": 20, "alpha": 0.25}),
    "vim": ("vim_postprocessor", "VIMPostprocessor", {"dim": 10}),
    "residual": ("residual_postprocessor", "ResidualPostprocessor", {"dim": 10}),
    "react": ("react_postprocessor", "ReactPostprocessor", {"percentile": 90}),
    "ash": ("ash_postprocessor", "ASHPostprocessor", {"percentile": 90}),
    "scale": ("scale_postprocessor", "ScalePostprocessor", {"percentile": 85}),
    "dice": ("dice_postprocessor", "DICEPostprocessor", {"p": 90}),
    "she": ("she_postprocessor", "SHEPostprocessor", {"metric": "inner_product"}),
    "gradnorm": ("gradnorm_postprocessor", "GradNormPostprocessor", {}),
    "fdbd": ("fdbd_postprocessor", "fDBDPostprocessor", {"distance_as_normalizer": True}),
    "nci": ("nci_postprocessor", "NCIPostprocessor", {"alpha": 0.0001}),
}
WRAPPED = {"react": "ReactNet", "ash": "ASHNet", "scale": "ScaleNet"}
compute = of_openood("evaluators.metrics", "compute_all_metrics")
inliers = {split: loader(split) for split in labels}
SETS = ("test", "near_a", "near_b", "far_a")
recorded = {f"features/{name}": rows for name, rows in features.items()}
recorded |= {f"labels/{name}": own.astype(np.int8) for name, own in labels.items()}
recorded |= {"weight": head.weight.detach().numpy().T, "bias": head.bias.detach().numpy()}


def as_openood_rates(found):
    """[near_a, near_b, nearood, far_a, farood] x [FPR@95, AUROC, AUPR_IN, AUPR_OUT, ACC], in percent."""
    pred, conf, true = found["test"]
    lines = {}
    for name in SETS[1:]:
        other_pred, other_conf, other = found[name]
        parts = ([conf, other_conf], [true, np.full(len(other), -1)], [pred, other_pred])
        lines[name] = np.asarray(compute(*map(np.concatenate, parts)))
    near = np.mean([lines["near_a"], lines["near_b"]], axis=0)
    return 100.0 * np.stack([lines["near_a"], lines["near_b"], near, lines["far_a"], lines["far_a"]])


for name, (module, cls, arguments) in METHODS.items():
    made = of_openood(f"postprocessors.{module}", cls)(settings(**arguments))
    network = Network()
    if name in WRAPPED:
        network = of_openood(f"networks.{name}_net", WRAPPED[name])(network)
    made.setup(network, inliers, {})
    found = {one: made.inference(network, loader(one), progress=False) for one in SETS}
    recorded[f"openood/{name}"] = np.concatenate([-found[one][1] for one in SETS])
    recorded[f"rates/{name}"] = as_openood_rates(found)
    if name == "temp_scaling":
        recorded["temperature"] = made.temperature.detach().numpy()
index = ["near_a", "near_b", "nearood", "far_a", "farood"]
table = pd.DataFrame(recorded["rates/msp"], index, ["FPR@95", "AUROC", "AUPR_IN", "AUPR_OUT", "ACC"])
recorded["csv"] = table.to_csv(float_format="%.2f")

# ---- pytorch-ood on the same arrays: its rates of its own detectors
torch.ones = real_ones
tensors = {name: torch.from_numpy(rows) for name, rows in features.items()}
logits = {name: head(rows).detach() for name, rows in tensors.items()}
y = torch.from_numpy(labels["train"])
weight, bias = head.weight.detach(), head.bias.detach()
right = logits["train"].argmax(1) == y


def on_maps(made):
    """Detectors of maps, here of one pixel."""
    made.head = lambda maps: head(maps.mean((2, 3)))
    if made.requires_fit:
        made.fit_feature_maps(tensors["train"][:, :, None, None], y)
    return lambda name: made.predict_feature_maps(tensors[name][:, :, None, None])


def on_features(made):
    made.fit_features(tensors["train"], y)
    return lambda name: made.predict_features(tensors[name])


def on_logits(made, chosen=slice(None)):
    if made.requires_fit:
        made.fit_logits(logits["train"][chosen], y[chosen])
    return lambda name: made.predict_logits(logits[name])


THEIRS = {
    "msp": on_logits(detector.MaxSoftmax(None)),
    "max_logit": on_logits(detector.MaxLogit(None)),
    "energy": on_logits(detector.EnergyBased(None)),
    "gen": on_logits(detector.GEN(None)),
    "kl_matching": on_logits(detector.KLMatching(None)),
    "openmax": on_logits(detector.OpenMax(None, tailsize=20, alpha=3), right),
    "mahalanobis": on_features(detector.Mahalanobis(None)),
    "relative_mahalanobis": on_features(detector.RMD(None)),
    "vim": on_features(detector.ViM(None, 10, weight, bias)),
    "knn": on_features(detector.KNN(None, k=10)),
    "react": on_maps(detector.ReAct(None, None, percentile=0.9)),
    "ash_b": on_maps(detector.ASH(None, None, "ash-b", 0.65)),
    "dice": on_features(detector.DICE(None, weight, bias, 0.9)),
    "she": on_features(detector.SHE(None, head)),
}
for name, score in THEIRS.items():
    lines = []
    with torch.no_grad():
        for other in SETS[1:]:
            metrics = OODMetrics()
            metrics.update(score("test").detach(), torch.from_numpy(labels["test"]))
            metrics.update(score(other).detach(), torch.full((SIZES[other],), -1))
            found = metrics.compute()
            lines.append([100.0 * found[key] for key in ("AUROC", "AUPR-IN", "AUPR-OUT", "FPR95TPR")])
        recorded[f"pytorch_ood/{name}"] = np.concatenate([score(one).detach().numpy() for one in SETS])
    recorded[f"pytorch_ood_rates/{name}"] = np.asarray(lines)

np.savez_compressed(Path(__file__).with_name("openood.npz"), **recorded)
print(f"pytorch-ood {pytorch_ood.__version__}, torch {torch.__version__}")
for name in METHODS:
    print(f"{name:14}", np.round(recorded[f"rates/{name}"][:, 1], 2))
