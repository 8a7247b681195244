"""The report of a run: for people as text and as a page, for programs as JSON, JUnit and SARIF, and as a badge."""
