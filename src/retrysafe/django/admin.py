"""Pages of Django's admin: the records, to be looked at; and those whose outcome is unknown, to be resolved."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from retrysafe.django.desk import desk
from retrysafe.django.models import Record
from retrysafe.errors import RetrysafeError
from retrysafe.model import Response, State
from retrysafe.operate import keys, shown, which
from retrysafe.operate.keys import Desk, Wanted
from retrysafe.protocol.transitions import ReadDetails

_LIMIT = 200
_LIST = "admin:retrysafe_record_changelist"


class Resolution(forms.Form):
    """What became of an operation whose outcome is unknown."""

    outcome = forms.ChoiceField(
        choices=(("not-done", "It did not take effect: the next retry runs"), ("completed", "It took effect")),
        widget=forms.RadioSelect,
    )
    status = forms.IntegerField(required=False, min_value=200, max_value=599, help_text="Of the answer of retries.")
    content_type = forms.CharField(required=False, initial="application/json")
    body = forms.CharField(required=False, widget=forms.Textarea, help_text="Of the answer of retries.")
    note = forms.CharField(help_text="How it was found out; kept in the history of the record.")

    def clean(self) -> dict[str, Any]:
        """An answer belongs to an operation that took effect."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("outcome") == "completed" and not cleaned.get("status"):
            self.add_error("status", "What are retries to get?")
        return cleaned


@admin.register(Record)
class RecordAdmin(admin.ModelAdmin):
    """The pages. Who may view records may look at them; who may change them may resolve them."""

    def has_add_permission(self, request: Any) -> bool:  # noqa: ARG002 - Django's signature
        """Records are made by requests."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:  # noqa: ARG002 - as above
        """Forgetting one lets a retry run again: that is for the command line."""
        return False

    def get_urls(self) -> list[Any]:
        """The two pages, in place of those that would read the model."""
        view = self.admin_site.admin_view
        return [
            path("", view(self.list_view), name="retrysafe_record_changelist"),
            path("<str:record>/", view(self.record_view), name="retrysafe_record_change"),
        ]

    def list_view(self, request: Any) -> HttpResponseBase:
        """Records as they stand, the oldest claim first."""
        _need(may=self.has_view_or_change_permission(request))
        chosen = request.GET.get("state", "")
        states = (State(chosen),) if chosen in list(State) else () if chosen == "stuck" else tuple(State)
        rows, more = [], False
        try:
            opened, _ = desk()
            listing = keys.list_records(opened.store, Wanted(states, chosen == "stuck", limit=_LIMIT))
            rows, more = shown.list_document(listing)["records"], listing.more
        except RetrysafeError as error:
            messages.error(request, str(error))
        choices = [*State, "stuck"]
        return self._page(request, "records", rows=rows, more=more, chosen=chosen, choices=choices)

    def record_view(self, request: Any, record: str) -> HttpResponseBase:
        """One record, its history, and the form that resolves it."""
        _need(may=self.has_view_or_change_permission(request))
        may_resolve = self.has_change_permission(request)
        form = Resolution(request.POST or None)
        try:
            opened, _ = desk()
            record_id = which.by_id(opened.store, record)
            if request.method == "POST":
                _need(may=may_resolve)
                if form.is_valid():
                    messages.success(request, _resolved(opened, record_id, form.cleaned_data, request.user))
                    return HttpResponseRedirect(request.path)
            lines, is_open = _shown(opened, record_id)
        except RetrysafeError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse(_LIST, current_app=self.admin_site.name))
        return self._page(request, "record", lines=lines, form=form if may_resolve and is_open else None, record=record)

    def _page(self, request: Any, template: str, **shown_there: Any) -> HttpResponseBase:
        context = {**self.admin_site.each_context(request), "title": "Idempotency records", "opts": self.opts}
        return TemplateResponse(request, f"retrysafe/{template}.html", context | shown_there)


def _need(*, may: bool) -> None:
    if not may:
        raise PermissionDenied


def _shown(opened: Desk, record_id: bytes) -> tuple[list[str], bool]:
    """The lines about a record, without what it answered; and whether somebody has to find out what became of it."""
    details = opened.store.perform(ReadDetails(record_id))
    response = shown.response_of(details, record_id, opened.secret, opened.encryption)
    steps = shown.Steps(details.journal, record_id, opened.secret, opened.encryption)
    found = details.found
    is_open = found is not None and (found.record.state is State.UNKNOWN or keys.is_stuck(found.record, found.now_ms))
    return list(shown.lines(record_id, details, response, steps)), is_open


def _resolved(opened: Desk, record_id: bytes, said: dict[str, Any], user: Any) -> str:
    by = keys.hand(user.get_username(), said["note"])
    if said["outcome"] == "not-done":
        return shown.settled(record_id, keys.rule_out(opened, record_id, by))
    fields = ((b"content-type", said["content_type"].encode("latin-1")),) if said["content_type"] else ()
    response = Response(said["status"], fields, said["body"].encode())
    return shown.settled(record_id, keys.complete(opened, record_id, response, by))
