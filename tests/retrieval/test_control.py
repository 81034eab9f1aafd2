"""Thresholds that altered copies measure."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedkit as ek
from embedkit.errors import InputError
from embedkit.retrieval.threshold import best_threshold, twin_share

_distances = st.lists(st.floats(0, 9), min_size=1, max_size=30)


@given(same=_distances, other=_distances)
def test_no_other_cut_is_better(same, other):
    """The F1 of the threshold is the best that any distance gives."""
    same, other = np.array(same), np.array(other)

    def f1(cut):
        hits, wrong = (same <= cut).sum(), (other <= cut).sum()
        return 2 * hits / (hits + wrong + len(same))

    found = best_threshold(same, other)

    assert f1(found) == max(f1(cut) for cut in np.append(same, other))


def test_duplicates_that_are_there_already_do_not_move_the_line():
    """With twins among the others, all copies are accepted still, and no other picture."""
    same, near = np.linspace(0, 1, 100) ** 3, np.linspace(0, 1, 60) ** 3
    far = np.linspace(3, 9, 40)

    share = twin_share(same, np.append(near, far))
    found = best_threshold(same, np.append(near + 0.5, far), twins=share)

    assert share == pytest.approx(0.6, abs=0.02)
    assert 0.95 < found < 3
    assert best_threshold(same, np.append(near + 0.5, far)) < 0.95


def test_of_equal_cuts_the_smallest_is_taken():
    """After the first near pair nothing is gained: the line stays before the far ones."""
    assert best_threshold(np.array([1.0]), np.array([3.0, 5.0])) == 2.0
    assert best_threshold(np.array([1.0]), np.array([np.inf])) == 1.0


def test_copies_of_digits_are_told_from_other_digits(store):
    """The same call gives the same threshold; another seed another one; all is told."""
    once, again = (
        ek.duplicate_threshold(store, layer="stage3", sample=40, metric="cosine")
        for _ in range(2)
    )
    other = ek.duplicate_threshold(store, layer="stage3", sample=40, seed=1)

    assert once == again
    assert other.threshold != once.threshold
    assert (once.metric, other.metric) == ("cosine", "euclidean")
    assert once.layer == "stage3.relu_1"
    assert once.n_copies == 20
    low, high = once.recall_interval
    assert 0 <= low <= once.recall <= high <= 1
    assert once.to_json()["recall_interval"] == [low, high]


def test_mirror_images_count_only_where_asked(store):
    """With flips, mirrored digits are among the copies, and the line lies further out."""
    plain, flipped = (
        ek.duplicate_threshold(store, layer="stage3", sample=90, flips=flips)
        for flips in (False, True)
    )

    assert flipped != plain


def test_images_that_changed_are_left_out(images, tmp_path, store):
    """Too few files as they were: the message says how many."""
    few = ek.extract(images[4:10], "embedkit/digits", tmp_path / "few.zarr")

    with pytest.raises(InputError, match=r"could copy 5 images of .* needs 8"):
        ek.duplicate_threshold(few)
    with pytest.raises(InputError, match="metric='inner_product'; choose"):
        ek.duplicate_threshold(store, metric="inner_product")


def test_changed_files_are_not_copied(table, tmp_path):
    """A file with other bytes than the store saw is no original any more."""
    import shutil

    folder = tmp_path / "photos"
    folder.mkdir()
    for row in (*range(6), *range(10, 18)):
        shutil.copy(table["path"][row], folder / f"{row:02d}.png")
    store = ek.extract(folder, "embedkit/digits", tmp_path / "s.zarr", layers="stage3")
    before = ek.duplicate_threshold(store.path)
    for row in (0, 1):
        shutil.copy(table["path"][60 + row], folder / f"{row:02d}.png")

    after = ek.duplicate_threshold(store)

    assert (before.n_copies, after.n_copies) == (7, 6)


def test_pixels_in_memory_have_to_be_given(images, tmp_path):
    """A store of an array asks for the images, and takes them."""
    pixels = np.stack([images.read(row) for row in range(20, 40)])
    store = ek.extract(pixels, "embedkit/digits", tmp_path / "a.zarr", layers="stage3")

    with pytest.raises(InputError, match="give them again with images="):
        ek.duplicate_threshold(store)
    found = ek.duplicate_threshold(store, images=ek.open_images(pixels))

    assert found.n_copies == 10


@pytest.mark.slow
def test_photos_are_told_apart(shared_data, tmp_path):
    """On real photos the threshold holds for copies that it was not chosen on."""
    weights = shared_data / "weights" / "squeezenet1_0_imagenet_deepcompression.pt"
    photos = sorted((shared_data / "clothing_cc0" / "train").rglob("*.jpg"))[::4]
    network = ek.load_network("squeezenet1_0", weights=weights)
    store = ek.extract(
        photos, network, tmp_path / "photos.zarr", layers="features.12.cat"
    )

    found = ek.duplicate_threshold(store, metric="cosine", sample=100)
    fresh = ek.duplicate_threshold(store, metric="cosine", sample=100, seed=1)

    assert found.f1 >= 0.95
    assert fresh.f1 >= 0.95
    assert dataclasses.asdict(found)["n_copies"] == 50
