"""Started by torchrun: every weight of a model is cut over two ranks, and the model says what it said before.

sharded_model.py RECIPE
"""

import sys
from functools import partial

import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from cores.checkpoints.probe import probe
from cores.recipe import load_recipe
from cores.training.sharding import as_forward, gather, score_whole, shard, units
from cores.training.start import start
from cores.training.trainable import choose_parts

recipe = load_recipe(sys.argv[1])
distributed.init_process_group("gloo")
rank = distributed.get_rank()

_, whole, processor = start(recipe, 1)
torch.manual_seed(1)
choose_parts(whole, recipe.model.train, recipe.lora)
said = probe(whole.eval(), processor)
names = dict(whole.named_parameters())

_, model, _ = start(recipe, 1, empty=rank > 0)
torch.manual_seed(1)
choose_parts(model, recipe.model.train, recipe.lora)
assert all(p.is_meta for p in model.parameters()) == (rank > 0), "only the first rank reads weights"
shard(model.eval(), torch.device("cpu"))

parameters = dict(model.named_parameters())
assert parameters.keys() == names.keys()
assert len(list(units(model))) >= 4
here = 0
for name, parameter in parameters.items():
    assert isinstance(parameter, DTensor), name
    assert (parameter.requires_grad, parameter.dtype) == (names[name].requires_grad, names[name].dtype), name
    local = parameter.to_local()
    assert local.numel() < parameter.numel() or len(parameter) == 1, f"{name}: a rank has all of it"
    assert torch.equal(parameter.full_tensor(), names[name]), name
    here += local.numel()
assert here < 0.6 * sum(parameter.numel() for parameter in names.values())

learned = gather(model)
assert learned.keys() == ({name for name, p in names.items() if p.requires_grad} if rank == 0 else set())
assert all(torch.equal(value, names[name]) for name, value in learned.items())

ask = partial(probe, model, processor)
together = as_forward(model, model, ask)
model.reset_iter_state()
assert all(torch.equal(one, other) for one, other in zip(together, said, strict=True))
alone = score_whole(model, ask if rank == 0 else partial(tuple, ()))  # the other rank asks nothing
assert rank > 0 or all(torch.equal(one, other) for one, other in zip(alone, said, strict=True))
assert all(isinstance(parameter, DTensor) for parameter in model.parameters()), "cut again afterwards"
distributed.destroy_process_group()
