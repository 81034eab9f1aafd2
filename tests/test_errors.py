"""The error tree."""

import inspect
import pickle

import pytest

from embedkit import errors

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, errors.EmbedkitError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_crosses_processes_as_itself(kind):
    """Type, message and attributes survive pickling, as Dask needs."""
    error = kind("what was asked, what was found, what to do")
    error.detail = ("a", 1)

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert str(again) == "what was asked, what was found, what to do"
    assert again.detail == ("a", 1)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_module_docstring_draws_the_whole_tree(kind):
    """Whoever reads the tree sees every error there is."""
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.SourceError, OSError),
        (errors.NetworkError, ValueError),
        (errors.NotInStore, KeyError),
        (errors.PlanError, ValueError),
        (errors.TaskError, RuntimeError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_also_the_builtin_kind(kind, builtin):
    """Code that expects the standard exception catches ours."""
    assert issubclass(kind, builtin)


def test_did_you_mean_names_the_nearest_or_what_there_is():
    """Suggestions are near names, else some of all names, else none."""
    assert errors.did_you_mean("resnt50", ["resnet50", "vgg16"]) == (
        "Did you mean 'resnet50'?"
    )
    assert errors.did_you_mean("zzz", ["a", "b", "c", "d"]) == (
        "There is 'a' or 'b' or 'c'."
    )
    assert errors.did_you_mean("zzz", []) == "There is none."
