"""Sphinx's search for a Python object, without reading all names for each one missing.

A type hint is looked for among the ends of all names that the reference has. Most hints
are of other projects (`torch.Tensor`, `int`) and end like none of them.
"""

from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry, PythonDomain
from sphinx.environment import BuildEnvironment


class Domain(PythonDomain):
    """Python's domain, which knows the last part of each name."""

    ends: frozenset[str] = frozenset()
    counted = -1

    def find_obj(
        self,
        env: BuildEnvironment,
        modname: str,
        classname: str,
        name: str,
        type: str | None,
        searchmode: int = 0,
    ) -> list[tuple[str, ObjectEntry]]:
        """Return the objects of a name, each of which ends like it; see Sphinx."""
        if self.counted != len(self.objects):
            self.ends = frozenset(x.rpartition(".")[2] for x in self.objects)
            self.counted = len(self.objects)
        if name.removesuffix("()").rpartition(".")[2] not in self.ends:
            return []
        return super().find_obj(env, modname, classname, name, type, searchmode)


def count_again(app: Sphinx, env: BuildEnvironment) -> None:
    """Have the names looked at again: pages were read."""
    domain = env.domains.python_domain
    if isinstance(domain, Domain):
        domain.counted = -1


def setup(app: Sphinx) -> None:
    """Put the domain in the place of Sphinx's."""
    app.add_domain(Domain, override=True)
    app.connect("env-updated", count_again)
