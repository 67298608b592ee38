"""All languages, in the order in which they are made."""

from collections.abc import Sequence

from scripts.sdks import csharp, java, python, typescript
from scripts.sdks.language import Language, StepFailed

LANGUAGES: tuple[Language, ...] = (python.LANGUAGE, typescript.LANGUAGE, java.LANGUAGE, csharp.LANGUAGE)


def chosen(arguments: Sequence[str], of: Sequence[Language]) -> Sequence[Language]:
    """Return the languages that the arguments of a command name; none means all."""
    names = [language.name for language in of]
    for argument in arguments:
        if argument not in {*names, "all"}:
            raise StepFailed(f"{argument!r} is none of: {', '.join((*names, 'all'))}")
    if not arguments or "all" in arguments:
        return of
    return [language for language in of if language.name in arguments]
