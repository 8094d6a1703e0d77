"""Histories by hand, as the module's histories are laid out."""

import torch
from torch import Tensor

from dae4rec_core.method.model import PAD


def pad_histories(histories: list[list[int]], max_len: int) -> Tensor:
    """Lists of item indices -> (B, L) with PAD on the left, the newest max_len items of each."""
    rows = [[PAD] * max_len + list(history) for history in histories]
    return torch.tensor([row[-max_len:] for row in rows])
