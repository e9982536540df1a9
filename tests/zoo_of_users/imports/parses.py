"""Parses the command line."""

import argparse

from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
options = parser.parse_args()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, options.width, 4, 4)

    def forward(self, x):
        return self.c(x).mean((2, 3))
