"""How a config names a part of the user's own."""

import pytest

from classwise.own_parts.reference import hint, is_own, short, split_reference, with_file


@pytest.mark.parametrize(
    "text", ["my_losses.py:MyLoss", "parts/a b.py:f", "C:\\x\\y.py:Net", "/a.py/b.py:X", "a.py:"]
)
def test_a_file_and_a_name_are_a_reference(text: str) -> None:
    """Whatever the folder is called; that the name is missing is said when it is looked for."""
    assert is_own(text)
    assert ":".join(split_reference(text)) == text


@pytest.mark.parametrize(
    "text", ["focal", "my_losses.py", "my_losses:MyLoss", "tf_efficientnet_b0.in1k", 3, None, ""]
)
def test_everything_else_is_a_name(text: object) -> None:
    """A name of timm with a dot is none, nor is a module's path with dots."""
    assert not is_own(text)


def test_a_reference_without_its_folder() -> None:
    """For messages; other names stay as they are."""
    assert short("/home/me/my_model.py:Net") == "my_model.py:Net"
    assert short("resnet18") == "resnet18"
    assert with_file("/home/me/my_model.py:Net", "code/my_model.py") == "code/my_model.py:Net"


def test_a_bare_file_gets_a_hint() -> None:
    """A file without a name is the usual slip."""
    assert "my_losses.py:MyPart" in hint("my_losses.py")
    assert not hint("focal")
