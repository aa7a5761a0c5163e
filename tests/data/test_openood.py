"""Which lists make up a benchmark of OpenOOD, found by their published names."""

import pytest

from quantjax.data.openood import BENCHMARKS, find_lists

# the names of OpenOOD 1.5's files, written out: what its evaluation opens
FILES = {
    "cifar10": "train_cifar10 val_cifar10 test_cifar10 test_cifar100 test_tin test_mnist test_svhn test_texture "
    "test_places365 test_cifar10c",
    "cifar100": "train_cifar100 val_cifar100 test_cifar100 test_cifar10 test_tin test_mnist test_svhn test_texture "
    "test_places365",
    "imagenet200": "train_imagenet200 val_imagenet200 test_imagenet200 test_ssb_hard test_ninco test_inaturalist "
    "test_textures test_openimage_o test_imagenet200_v2 test_imagenet200_c test_imagenet200_r",
    "imagenet": "train_imagenet val_imagenet test_imagenet test_ssb_hard test_ninco test_inaturalist test_textures "
    "test_openimage_o test_imagenet_v2 test_imagenet_c test_imagenet_r test_imagenet_es",
}


def put(folder, name, leave_out=()):
    folder.mkdir()
    for stem in set(FILES[name].split()) - set(leave_out):
        (folder / f"{stem}.txt").write_text("")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_every_published_list_has_its_place(tmp_path, name):
    assert FILES.keys() == BENCHMARKS.keys()
    folder = put(tmp_path / "lists", name)
    lists = find_lists(folder, full_spectrum=bool(BENCHMARKS[name].shifted))
    assert {path.stem for path in lists.files.values()} == set(FILES[name].split())
    assert lists.inlier == name
    assert [len(names) for names in lists.groups.values()] == [2, 3 if "imagenet" in name else 4]
    assert lists.outliers == (*lists.groups["near"], *lists.groups["far"])


def test_shifted_lists_are_read_where_they_are_asked_for(tmp_path):
    folder = put(tmp_path / "lists", "cifar10", leave_out=["test_cifar10c"])
    assert find_lists(folder).shifted == ()
    with pytest.raises(FileNotFoundError, match=r"lacks test_cifar10c\.txt of the benchmark cifar10; get them from"):
        find_lists(folder, full_spectrum=True)
    with pytest.raises(ValueError, match=r"no shifted inliers of cifar100, only of cifar10, imagenet200, imagenet:"):
        find_lists(put(tmp_path / "cifar100", "cifar100"), full_spectrum=True)


def test_what_is_not_there_is_named(tmp_path):
    folder = put(tmp_path / "lists", "cifar10", leave_out=["test_tin", "val_cifar10"])
    with pytest.raises(FileNotFoundError, match=r"lacks val_cifar10\.txt, test_tin\.txt of the benchmark cifar10"):
        find_lists(folder)
    with pytest.raises(FileNotFoundError, match=r"nowhere holds none of train_cifar10\.txt, .* of one benchmark"):
        find_lists(tmp_path / "nowhere")


def test_of_several_benchmarks_the_folder_names_one(tmp_path):
    folder = put(tmp_path / "lists", "cifar10")
    (folder / "train_cifar100.txt").write_text("")
    with pytest.raises(ValueError, match="holds the training lists of cifar10, cifar100"):
        find_lists(folder)
    folder.rename(tmp_path / "cifar10")
    assert find_lists(tmp_path / "cifar10").inlier == "cifar10"
