"""Whatever stands around or before a network's names comes off by one rule; a choice between networks is said."""

import numpy as np
import pytest

from quantjax.convert.wrappings import unwrap

CONV, FC = np.zeros((1, 2)), np.ones(3)
PLAIN = {"conv1.weight": CONV, "fc.bias": FC}


def under(prefix, arrays=PLAIN):
    return {f"{prefix}{name}": array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        (PLAIN, ""),
        ({**PLAIN, "bn1.num_batches_tracked": np.array(7), "n_averaged": np.array(3)}, ""),
        (under("module."), "module"),
        (under("module.module."), "module.module"),
        (under("_orig_mod."), ""),
        (under("module._orig_mod."), "module"),
        (under("_orig_mod.module."), "module"),
        (under("model."), "model"),
        (under("net."), "net"),
        (under("backbone."), "backbone"),
        ({"backbone.conv1.weight": CONV, "fc.bias": FC}, "backbone"),
        ({"state_dict": PLAIN, "epoch": 3, "arch": "resnet20"}, "state_dict"),
        ({"state_dict": under("module.model."), "best": 0.9}, "state_dict.module.model"),
        ({"model_state_dict": PLAIN, "optimizer": {"state": {0: {"exp_avg": CONV}}}}, "model_state_dict"),
        ({"model": under("_orig_mod."), "optimizer_state_dict": {"state": {"conv1.weight": CONV}}}, "model"),
        ({"net": under("module."), "acc": 95.3}, "net.module"),
        ({"teacher": under("backbone.")}, "teacher.backbone"),
        ({"ema": PLAIN}, "ema"),
        ({"state_dict_ema": under("module.")}, "state_dict_ema.module"),
        ({"my own name": PLAIN, "epoch": 3}, "my own name"),
    ],
    ids=str,
)
def test_one_network_is_found_without_a_word(entries, key):
    taken = unwrap(entries)
    assert set(taken.arrays) == set(PLAIN)
    assert taken.arrays["conv1.weight"] is CONV
    assert (taken.key, taken.note) == (key, "")
    assert unwrap(taken.arrays).arrays == taken.arrays


OTHER = {"conv1.weight": FC, "fc.bias": CONV}


@pytest.mark.parametrize(
    ("entries", "key", "note"),
    [
        ({"state_dict": OTHER, "state_dict_ema": PLAIN}, "state_dict_ema", "'state_dict_ema' are read, not state_dict"),
        ({"model": OTHER, "model_ema": PLAIN}, "model_ema", "'model_ema' are read, not model"),
        ({"student": OTHER, "teacher": PLAIN}, "teacher", "'teacher' are read, not student"),
        (under("student.backbone.", OTHER) | under("teacher.backbone."), "teacher.backbone", "not student"),
        ({"cls_state_dict": PLAIN, "nfs_state_dict": OTHER}, "cls_state_dict", "not nfs_state_dict"),
        (under("backbone.") | under("dino_head.", OTHER), "backbone", "not dino_head; choose with key"),
    ],
    ids=str,
)
def test_of_several_one_is_read_and_the_choice_is_said(entries, key, note):
    taken = unwrap(entries)
    assert taken.arrays == PLAIN
    assert taken.key == key
    assert note in taken.note
    assert "--weights-key" in taken.note


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ({"state_dict": PLAIN, "state_dict_ema": OTHER}, "state_dict"),
        ({"student": under("module.backbone."), "teacher": OTHER}, "student"),
        ({"teacher": under("backbone.") | under("dino_head.", OTHER)}, "teacher.backbone"),
        (under("encoder_q.") | under("encoder_k.", OTHER), "encoder_q"),
        ({"one": PLAIN, "two": OTHER}, "one"),
    ],
    ids=str,
)
def test_a_key_chooses(entries, key):
    taken = unwrap(entries, key)
    assert taken.arrays == PLAIN
    assert taken.note == ""


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(ValueError, match=r"several networks, one, two: name the one to read as key \(--weights-key\)"):
        unwrap({"one": PLAIN, "two": OTHER})
    with pytest.raises(ValueError, match=r"holds no 'three' \(key, --weights-key\); it holds one, two"):
        unwrap({"one": PLAIN, "two": OTHER}, "three")
    assert unwrap({"epoch": 3, 7: CONV, "rates": [1, 2]}).arrays == {}
