"""Security events: what was refused or shown, to whom, in one log line each (docs/security.md lists them).

Whoever refuses notes it on the request at hand; `SecurityLog` writes the line, with what all of them carry.
Only words of ours, ids and numbers are noted: nothing that a caller could write lines or secrets with.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from starlette.types import Scope

from app.context import CURRENT, context_of

log = structlog.get_logger("security")

OBJECT_DENIED = "object_denied"
#: Of whom it is known that the same was written lately; the oldest go first, and are written again.
MOST_SUBJECTS = 10_000


class Note(NamedTuple):
    """An event of the request at hand."""

    event: str
    fields: dict[str, Any]
    #: Whose event it is, if it is written once only for all that are alike.
    subject: tuple[str, ...] | None = None
    #: For how long.
    seconds: float = 0.0


def note(event: str, **fields: Any) -> None:
    """Note an event of the request at hand."""
    _add(Note(event, fields))


def note_once(event: str, subject: tuple[str, ...], seconds: float, **fields: Any) -> None:
    """Note an event that may come in floods: of one subject it is written once in so many seconds."""
    _add(Note(event, fields, subject, seconds))


def note_denied_object(entity_type: str, entity_id: str | None) -> None:
    """Note that the key may not see an object, or that there is none; all of one request are one event."""
    context = CURRENT.get()
    for noted in context.notes if context is not None else ():
        if noted.event == OBJECT_DENIED:
            noted.fields["others"] += 1
            return
    note(OBJECT_DENIED, entity_type=entity_type, entity_id=entity_id, others=0)


def _add(noted: Note) -> None:
    context = CURRENT.get()
    # There is none when the gateway works for itself.
    if context is not None:
        context.notes.append(noted)


class SecurityLog:
    """Writes what has been noted. One object serves the process.

    Args:
        template_of: returns the template of the route that a request would have reached.
        clock: monotonic seconds.
    """

    def __init__(
        self, template_of: Callable[[Scope], str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._template_of, self._clock = template_of, clock
        #: Until when alike events are not written, and how many were not.
        self._written: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        #: For metrics: all events by name and reason, those that were not written included.
        self.counts: Counter[tuple[str, str]] = Counter()

    def write(self, scope: Scope) -> None:
        """Write and forget what this request has noted so far."""
        context = context_of(scope)
        notes, context.notes = context.notes, []
        route = getattr(scope.get("route"), "path_format", None) or self._template_of(scope)
        shared = {
            "key_id": context.caller.id if context.caller else None,
            "client": context.client_address,
            "request_id": context.request_id,
            "method": scope.get("method"),
            "route": route,
        }
        for noted in notes:
            fields = {**shared, **noted.fields}
            reason = noted.fields.get("counted_by") or noted.fields.get("reason") or ""
            self.counts[noted.event, reason] += 1
            if noted.subject is not None:
                missed = self._missed((noted.event, *noted.subject), noted.seconds)
                if missed is None:
                    continue
                fields["not_logged"] = missed
            log.warning(noted.event, **fields)

    def _missed(self, subject: tuple[str, ...], seconds: float) -> int | None:
        """Return how many alike were left out since the last line, or None: this one is left out, too."""
        now = self._clock()
        until, missed = self._written.get(subject, (0.0, 0))
        if now < until:
            self._written[subject] = until, missed + 1
            return None
        self._written[subject] = now + seconds, 0
        self._written.move_to_end(subject)
        if len(self._written) > MOST_SUBJECTS:
            self._written.popitem(last=False)
        return missed
