"""Settings of torch's optimizers."""

import inspect

import torch
from hypothesis import strategies as st


@st.composite
def adams(draw):
    """Names and options of fused optimizers of one vector, some of them for torch's own way only."""
    name = draw(st.sampled_from(["Adam", "AdamW"]))
    rate = draw(st.sampled_from([0.1, 0.003]))
    options = {
        "lr": draw(st.sampled_from([rate, torch.tensor(rate)])),
        "betas": draw(st.sampled_from([(0.9, 0.999), (0.5, 0.9)])),
        "eps": draw(st.sampled_from([1e-8, 1e-2])),
        "weight_decay": draw(st.sampled_from([0.1, 0.0])),
        "amsgrad": draw(st.sampled_from([False, False, True])),
        "maximize": draw(st.booleans()),
        "fused": True,
    }
    if name == "Adam" and "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters:
        options["decoupled_weight_decay"] = draw(st.booleans())
    return name, options, draw(st.integers(1, 3)), draw(st.sampled_from(["one", "one", "two", "a group later"]))
