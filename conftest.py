"""For every test run, doctests included."""

from importlib.util import find_spec

# Whose packages are extras, and none of the tests'. Only these: with `--doctest-ignore-import-errors` any module with a
# wrong import would be left out, the tests' own too, and nobody would see it.
collect_ignore = [
    f"src/metatower/adapters/{name}.py" for name in ("gymnax", "metaworld", "mujoco") if find_spec(name) is None
]


def pytest_sessionstart(session):
    """Imports the package before any doctest does."""
    # Imported by name before any doctest collects a module of it by path: a module that exists twice has two classes of
    # the same name, which the type checks, memoised by name, would take for each other.
    import metatower  # noqa: F401
