"""The backbones written in PyTorch from their papers, under the names of published checkpoints; the goldens' source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv3(a: int, b: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, stride, 1, bias=False)


class WideBlock(nn.Module):
    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(a), conv3(a, b, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(b), conv3(b, b)
        self.convShortcut = None if a == b else nn.Conv2d(a, b, 1, stride, bias=False)

    def forward(self, x):
        r = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(r)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(r))))


class WideGroup(nn.Module):
    def __init__(self, n: int, a: int, b: int, stride: int):
        super().__init__()
        self.layer = nn.Sequential(*[WideBlock(a if i == 0 else b, b, stride if i == 0 else 1) for i in range(n)])

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    def __init__(self, depth: int, width: int, classes: int = 10):
        super().__init__()
        n, w = (depth - 4) // 6, [16 * width * 2**g for g in range(3)]
        self.conv1 = conv3(3, 16)
        self.block1, self.block2, self.block3 = (
            WideGroup(n, a, b, s) for a, b, s in ((16, w[0], 1), (w[0], w[1], 2), (w[1], w[2], 2))
        )
        self.bn1, self.fc = nn.BatchNorm2d(w[2]), nn.Linear(w[2], classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        features = F.relu(self.bn1(x)).mean((2, 3))
        return self.fc(features), features


class Block(nn.Module):
    def __init__(self, a: int, b: int, stride: int, project: bool):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = (
            conv3(a, b, stride),
            nn.BatchNorm2d(b),
            conv3(b, b),
            nn.BatchNorm2d(b),
        )
        self.stride, self.new = stride, b - a
        changes = stride != 1 or a != b
        projection = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        self.shortcut = projection if project and changes else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(x + y)


class Residual(nn.Module):
    def __init__(self, blocks: int, widths: tuple[int, ...], project: bool, classes: int = 10):
        super().__init__()
        self.conv1, self.bn1 = conv3(3, widths[0]), nn.BatchNorm2d(widths[0])
        self.groups, before = len(widths), widths[0]
        for g, width in enumerate(widths, 1):
            first = Block(before, width, 1 if g == 1 else 2, project)
            setattr(
                self, f"layer{g}", nn.Sequential(first, *[Block(width, width, 1, project) for _ in range(blocks - 1)])
            )
            before = width
        self.linear = nn.Linear(before, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for g in range(1, self.groups + 1):
            x = getattr(self, f"layer{g}")(x)
        features = x.mean((2, 3))
        return self.linear(features), features


class DenseLayer(nn.Module):
    def __init__(self, a: int, growth: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(a), nn.Conv2d(a, 4 * growth, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), conv3(4 * growth, growth)

    def forward(self, x):
        return torch.cat([x, self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))], 1)


class DenseBlock(nn.Module):
    def __init__(self, n: int, a: int, growth: int):
        super().__init__()
        self.layer = nn.Sequential(*[DenseLayer(a + i * growth, growth) for i in range(n)])

    def forward(self, x):
        return self.layer(x)


class Transition(nn.Module):
    def __init__(self, a: int, b: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(a), nn.Conv2d(a, b, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class Dense(nn.Module):
    def __init__(self, depth: int, growth: int, classes: int = 10):
        super().__init__()
        n, a = (depth - 4) // 6, 2 * growth
        self.conv1 = conv3(3, a)
        for g in (1, 2, 3):
            setattr(self, f"block{g}", DenseBlock(n, a, growth))
            a += n * growth
            if g < 3:
                setattr(self, f"trans{g}", Transition(a, a // 2))
                a //= 2
        self.bn1, self.fc = nn.BatchNorm2d(a), nn.Linear(a, classes)

    def forward(self, x):
        x = self.trans2(self.block2(self.trans1(self.block1(self.conv1(x)))))
        features = F.relu(self.bn1(self.block3(x))).mean((2, 3))
        return self.fc(features), features


def build(name: str, classes: int = 10) -> nn.Module:
    if name.startswith("densenet"):
        return Dense(100, 12, classes)
    if name == "resnet18":
        return Residual(2, (64, 128, 256, 512), True, classes)
    if name.startswith("resnet"):
        return Residual((int(name.removeprefix("resnet")) - 2) // 6, (16, 32, 64), False, classes)
    depth, width = map(int, name.removeprefix("wrn").split("_"))
    return Wide(depth, width, classes)
