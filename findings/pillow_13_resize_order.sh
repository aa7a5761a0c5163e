#!/usr/bin/env bash
# Pillow 13 resizes images that are tall for their target in another order of passes than 12 did: other pixels.
#
# Expected: resizing a uint8 image with one filter gives the same pixels in two neighbouring releases, as results that
# were published with torchvision's transforms on PIL images rely on.
# Seen with Pillow 12.3.0 and 13.0.0 on Python 3.11: both resize in two passes and round to uint8 between them, so that
# the order shows. 12.3.0 always takes the horizontal pass first; 13.0.0 takes the vertical pass first for an image that
# is tall for its target (640 high, 400 wide, to 224 x 224), and the horizontal one for the same image lying. On noise a
# fifth of the values then differs between the releases, by up to 5 levels with BICUBIC and by 1 with BILINEAR. Two
# calls, one axis each, give either order in both releases.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for release in 12.3.0 13.0.0; do
  python3 -m venv "$folder/$release"
  "$folder/$release/bin/pip" install -q "pillow==$release" numpy==2.4.6
done
cat > "$folder/resize.py" <<'PROGRAM'
import sys

import numpy as np
from PIL import Image

noise = np.random.default_rng(0).integers(0, 256, (640, 400, 3), dtype=np.uint8)
found = {}
for name in ("BILINEAR", "BICUBIC"):
    for shape, image in (("tall", noise), ("lying", np.ascontiguousarray(noise.swapaxes(0, 1)))):
        picture, way = Image.fromarray(image), Image.Resampling[name]
        across = picture.resize((224, picture.height), way).resize((224, 224), way)  # horizontal pass first
        down = picture.resize((picture.width, 224), way).resize((224, 224), way)  # vertical pass first
        whole = np.asarray(picture.resize((224, 224), way))
        orders = [order for order, other in (("horizontal", across), ("vertical", down)) if (whole == other).all()]
        print(f"Pillow {Image.__version__}, {name}, {shape}: {' and '.join(orders)} first")
        found[f"{name}_{shape}"] = whole
np.savez(sys.argv[1], **found)
PROGRAM
for release in 12.3.0 13.0.0; do
  "$folder/$release/bin/python" "$folder/resize.py" "$folder/$release.npz" | tee -a "$folder/orders.txt"
done
"$folder/13.0.0/bin/python" - "$folder" <<'PROGRAM'
import sys
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
old, new = (np.load(folder / f"{release}.npz") for release in ("12.3.0", "13.0.0"))
for name in old.files:
    apart = np.abs(old[name].astype(int) - new[name].astype(int))
    print(f"{name}: {100 * (apart > 0).mean():.1f} % of the values differ between the releases, by up to {apart.max()}")
    assert (apart.max() > 0) == name.endswith("tall"), "the releases agree now: this finding is out of date"
orders = [line.rsplit(": ", 1)[1] for line in (folder / "orders.txt").read_text().splitlines()]
assert orders == ["horizontal first"] * 4 + ["vertical first", "horizontal first"] * 2, orders
print("as stated: Pillow 13 resizes tall images in the other order")
PROGRAM
