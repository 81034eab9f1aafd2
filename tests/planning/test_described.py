"""A plan in words and in HTML."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from embedkit.planning.costs import PYTHON
from embedkit.planning.measurement import LayerSize
from embedkit.planning.plan import make_plan
from embedkit.planning.units import MIB

VOID = ("br",)


class Tree(HTMLParser):
    """Checks that elements are closed in order, and gathers names and text."""

    def __init__(self):
        super().__init__()
        self.open, self.names, self.text, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def many(question, measured):
    """A hundred and seventy-five layers of growing size."""
    layers = tuple(
        LayerSize(
            name=f"block{at}.relu",
            shape=(64 + at,),
            itemsize=4,
            flops=(at + 1) * 10**7,
            raw_entries=10**5,
            channels=64 + at,
        )
        for at in range(175)
    )
    network = replace(measured.networks[0], layers=layers)
    return make_plan(
        replace(
            question,
            measured=replace(measured, networks=(network,)),
            memory_limit=800 * MIB,
        )
    )


def test_many_layers_are_told_in_few_lines(many):
    """The largest are named, the others summed up, and nothing is lost."""
    lines = many.describe().splitlines()

    assert len(lines) < 30
    assert max(map(len, lines)) < 130
    assert [line.split()[0] for line in lines[3:7]] == [
        f"block{at}.relu" for at in range(171, 175)
    ]
    (rest,) = (line for line in lines if "171 smaller layers" in line)
    shards = sum(layer.files for layer in many.layers[:171])
    assert f"{shards:,} shards" in rest


def test_six_layers_have_a_line_each(question, measured, layers):
    """Up to there nothing is summed up."""
    more = (*layers, *(replace(each, name=f"{each.name}x") for each in layers[:2]))
    network = replace(measured.networks[0], layers=more)
    plan = make_plan(replace(question, measured=replace(measured, networks=(network,))))

    text = plan.describe()

    assert all(f"\n  {layer.name}" in text for layer in more)
    assert "smaller layers" not in text


def test_one_layer_has_one_way(question, measured):
    """There is nothing to choose, so nothing is said of it."""
    first = measured.networks[0]
    one = replace(measured, networks=(replace(first, layers=first.layers[:1]),))

    plan = make_plan(replace(question, measured=one, strategy="auto"))

    assert (plan.strategy, plan.ways) == ("fused", ())
    assert "ways to compute" not in plan.describe()


def test_parts_in_words_add_up(question):
    """What is summed up as all else is what the other parts take."""
    plan = make_plan(question)

    shown = re.findall(r"^  [A-Za-z ]+?  +([\d.]+) MiB$", plan.describe(), re.MULTILINE)

    assert sum(map(float, shown)) == pytest.approx(plan.projected_mem / MIB, abs=0.3)


def test_threads_that_wait_for_one_another_are_told(question, measured):
    """It is said what helps: more processes."""
    slow = replace(measured, held_seconds=1.0)
    plan = make_plan(replace(question, measured=slow, n_workers=1, threads=2))

    assert plan.waits_for == PYTHON
    assert "more workers with fewer threads would help" in plan.describe()


def test_html_is_whole_and_says_what_the_text_says(many):
    """Elements are closed in order; there is no script and nothing is fetched."""
    html, tree = many._repr_html_(), Tree()

    tree.feed(html)
    tree.close()

    text = " ".join(tree.text)
    assert tree.open == []
    assert html.startswith('<div class="embedkit-plan">')
    assert "script" not in tree.names
    assert {name for name, _ in tree.attributes} <= {"class", "style"}
    assert "http" not in html
    assert len(html) < 20_000
    for said in ("175 layers", "171 smaller layers", "memory of a worker", "decode"):
        assert said in text
    assert all(each in text for each in (*many.faster, *many.ways))


def test_names_are_escaped(question, measured, layers):
    """A layer's name comes from outside."""
    bad = replace(layers[0], name="<b>&")
    network = replace(measured.networks[0], layers=(bad,))
    plan = make_plan(replace(question, measured=replace(measured, networks=(network,))))

    assert "&lt;b&gt;&amp;" in plan._repr_html_()
    assert "<b>&" not in plan._repr_html_()
