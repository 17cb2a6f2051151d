"""Started by torchrun: every weight of a model is cut over two ranks, and the model says what it said before.

sharded_model.py RECIPE
"""

import sys
from functools import partial

import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from cores.asking.asker import Asker
from cores.checkpoints.probe import drawn_picture, probe
from cores.errors import DataError, UserError
from cores.recipe import load_recipe
from cores.training.interruption import Cut
from cores.training.lockstep import Lockstep
from cores.training.ranks import end_at_once, leave
from cores.training.sharding import as_forward, gather, held, shard, units
from cores.training.start import start
from cores.training.trainable import choose_parts

recipe = load_recipe(sys.argv[1])
distributed.init_process_group("gloo")
rank = distributed.get_rank()

_, whole, processor = start(recipe, 1)
torch.manual_seed(1)
choose_parts(whole, recipe.model.train, recipe.lora)
said = probe(whole.eval(), processor)
words = 4 + 7 * rank  # the ranks' own answers have other lengths


def answers(model):
    asker = Asker(model, processor, max_new_tokens=words)
    found = asker.generate(asker.encode_image(drawn_picture()), [("disc", "phrase"), ("stripe", "phrase")])
    return [one.ids for one in found]


written = answers(whole)
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

layers = list(units(model))
whole_at_once: list[int] = []


def look(*_):
    whole_at_once.append(sum(not any(isinstance(p, DTensor) for p in layer.parameters()) for layer in layers))


def ask(times):
    """The same a number of times: as ranks with unequal shares do."""
    return [probe(model, processor) for _ in range(times)]


handles = [layer.register_forward_pre_hook(look) for layer in layers]
lockstep = Lockstep(layers, held)
for times in (1, 1), (2, 1), (3, 0), (0, 1):
    found = as_forward(model, partial(lockstep.run, partial(ask, times[rank])))
    assert len(found) == times[rank]
    assert all(torch.equal(one, other) for again in found for one, other in zip(again, said, strict=True))
assert as_forward(model, partial(lockstep.run, partial(answers, model))) == written
for handle in handles:
    handle.remove()
assert set(whole_at_once) == {1}, "never more than one layer is whole"
polls = iter([False] * 9)
stopping = Lockstep(layers, held, stopped=lambda: rank == 0 and next(polls, True))


def cut_short():
    try:
        return ask(2)
    except Cut:
        return "cut"


def fail_on_the_second():
    if rank == 1:
        ask(1)
        raise DataError("a picture is gone")
    return ask(3)


assert as_forward(model, partial(stopping.run, cut_short)) == "cut", "told to stop, one rank stops all"
with pytest.raises(UserError, match="a picture is gone" if rank == 1 else "another process of this run has ended"):
    as_forward(model, partial(lockstep.run, fail_on_the_second))
(again,) = as_forward(model, partial(lockstep.run, partial(ask, 1)))
assert all(torch.equal(one, other) for one, other in zip(again, said, strict=True))
assert all(isinstance(parameter, DTensor) for parameter in model.parameters()), "cut again afterwards"
leave()
end_at_once(0)
