from __future__ import annotations

from dataclasses import dataclass

from tfgen._tensorflow import compiled_for


@dataclass(frozen=True)
class Owner:
    name: str


class Fickle:
    """Its hash changes while it is kept, as that of an object whose configuration is changed."""

    value = 0

    def __hash__(self):
        return self.value


def test_equal_owners_share_what_was_made_once():
    made = [compiled_for(Owner("a"), "square", object) for _ in range(2)]
    assert made[0] is made[1]
    assert compiled_for(Owner("a"), "cube", object) is not made[0]
    assert compiled_for(Owner("b"), "square", object) is not made[0]


def test_keeps_what_was_used_last():
    used, unused = (compiled_for(Owner(name), "f", object) for name in ("used", "unused"))
    for i in range(60):
        compiled_for(Owner(str(i)), "f", object)
        assert compiled_for(Owner("used"), "f", object) is used
    assert compiled_for(Owner("unused"), "f", object) is not unused


def test_survives_owners_that_change():
    owner = Fickle()
    for i in range(100):
        Fickle.value = i
        assert compiled_for(owner, "f", lambda i=i: i) == i
        assert compiled_for(Owner("other"), "f", lambda: "other") == "other"
