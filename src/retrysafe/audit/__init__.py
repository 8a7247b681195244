"""`retrysafe audit`: what of an API a retry could do twice, found without sending it a request.

Reading order: `surface` is what an audit looks at, whatever it was made from: an application (`applications`), an
OpenAPI document (`documents`), a Django project (`retrysafe.django.surface`). `rule` says what a finding is, and
`rules` are all of them, one function each. `silence` is what nobody wants to hear again, `fragments` what to paste,
`report` how it is shown, `command` all of it from options to an exit code.
"""
