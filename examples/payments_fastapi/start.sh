#!/bin/sh
# Starts the application at http://127.0.0.1:$PORT. Its tables are made in the database that DATABASE_URL names.
set -eu
: "${DATABASE_URL:?name a PostgreSQL database, like postgresql://localhost/payments}"
exec uvicorn --app-dir "$(dirname "$0")" app:app --port "${PORT:-8000}"
