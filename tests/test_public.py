import ast
from pathlib import Path

import metatower


def test_every_public_name_is_there_and_known_to_type_checkers():
    tree = ast.parse(Path(metatower.__file__).read_text())
    typed = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed - {None} == set(metatower.__all__)
    for name in metatower.__all__:
        assert getattr(metatower, name).__doc__, name
    assert set(metatower.__all__) <= set(dir(metatower))
