"""Unknown objects without training: outlier methods on the patch features of a frozen backbone.

A method of `quantjax.methods` that reads features alone is fitted to the patches of a few inlier scenes, one map after
the other; a scene's score is that of its patches, brought to the size of the scene.
"""

from quantjax.documented import show_fields
from quantjax.patches.fit import FittedPatches, PatchMethod, check_method, fit_patches, template
from quantjax.patches.network import PatchNetwork, backbone, default_maps, map_names, named_features, scaled_names
from quantjax.patches.rows import PatchRows, patch_rows
from quantjax.patches.scoring import finish, make_scorer, patch_scores, windows

__all__ = [
    "FittedPatches",
    "PatchMethod",
    "PatchNetwork",
    "PatchRows",
    "backbone",
    "check_method",
    "default_maps",
    "finish",
    "fit_patches",
    "make_scorer",
    "map_names",
    "named_features",
    "patch_rows",
    "patch_scores",
    "scaled_names",
    "template",
    "windows",
]

show_fields(__name__)
