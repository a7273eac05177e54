"""The chapter's ladder; its reductions have files of their own."""

from tilebook import softmax


def test_the_package_says_what_it_is():
    assert softmax.__doc__
