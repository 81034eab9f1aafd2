"""Conditions that are refused, and why."""

import numpy as np
import pytest

from embedkit.errors import InputError
from embedkit.retrieval.where import mask_of


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("lable == '3'", "column 'lable', which .* Did you mean 'label'"),
        ("width > @np.pi", r"takes no variables \(@\); use columns"),
        ("width @ width", "takes no BinOp|MatMult in it"),
        ("label.__class__ == 1", "takes no '.__class__'"),
        ("__import__('os').name", "takes no '.name'"),
        ("'`' + label.to_pickle('x') + '`'", "takes no '.to_pickle'"),
        ('"`" == label.values and "`"', "takes no '.values'"),
        ("__import__ == 1", "column '__import__', which"),
        ("(" * 500 + "width" + ")" * 500, "cannot read where="),
        ("width > 10**99", "takes no Pow in it"),
        ("label.to_pickle('x')", "takes no '.to_pickle'"),
        ("sqrt(width) > 3", "takes no functions"),
        ("[w for w in width]", "takes no ListComp in it"),
        ("(lambda: width)()", "takes no (Lambda|functions)"),
        ("width[0] > 3", "takes no Subscript in it"),
        ("width >", "cannot read where='width >'"),
        ("width > 'a'", "cannot evaluate where="),
        ("width > 1e9", "holds for none of the 100 images"),
        ("width + 1", "one bool for each of the 100 images and got int64"),
        (np.ones(3, bool), r"got bool of shape \(3,\)"),
        (np.zeros(100, bool), "where=the mask, which holds for none"),
        (lambda table: table["width"], "got int64"),
    ],
)
def test_what_is_no_filter_is_refused(store, where, message):
    """Each message says what is wrong with it."""
    with pytest.raises(InputError, match=message):
        mask_of(store["stage3"], where)


def test_no_filter_is_no_mask(store):
    """Nothing of the table is read without a filter."""
    assert mask_of(store["stage3"], None) is None


def test_columns_of_numbers_and_methods_of_text(store):
    """Arithmetic, ranges and methods of text columns can be used."""
    rows = np.arange(100)

    found = mask_of(
        store["stage3"], "width // 10 % 2 == 0 and label.str.contains('1|2')"
    )
    ranged = mask_of(store["stage3"], "width.between(100, 200) | -width == 0")

    np.testing.assert_array_equal(found, (rows % 2 == 0) & np.isin(rows // 10, [1, 2]))
    np.testing.assert_array_equal(ranged, ((rows >= 10) & (rows <= 20)) | (rows == 0))


def test_texts_may_hold_anything(store):
    """What stands between quotes is never read as a name, a variable or a quote."""
    found = mask_of(
        store["stage3"],
        "label != '`width` @x __class__' and label not in [\"it's `so`\", 'a\\'b']"
        " and `two words` == `width` / 20 == width / 20 and label.isin(['1'])"
        " and `two words` >= 0 and `image` != '1/13'",
    )

    assert np.flatnonzero(found).tolist() == [10, 11, 12, *range(14, 20)]


def test_the_status_is_a_column(store):
    """What was unreadable can be asked for, or left out."""
    found = mask_of(store["stage3"], "status == 'unreadable'")

    assert np.flatnonzero(found).tolist() == [7]


@pytest.mark.parametrize(
    "where",
    [
        "not ((label == '3') | (label == '4'))",
        "((label == '3') | (label == '4')) and width > 400",
        "~((label == '3') | (label == '4')) & width > 400",
        "label == '3' | label == '4'",
    ],
)
def test_conditions_mean_what_pandas_takes_them_for(store, where):
    """Parentheses count, with words and with signs."""
    expected = store.images.eval(where, engine="python").to_numpy(bool)

    assert np.array_equal(mask_of(store["stage3"], where), expected)
