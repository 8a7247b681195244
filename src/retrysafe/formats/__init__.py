"""Formats that are not ours and that more than one part needs: OpenAPI documents, and reports for code scanning."""
