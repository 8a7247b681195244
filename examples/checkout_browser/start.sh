#!/bin/sh
# Starts the application at http://127.0.0.1:$PORT, with its orders in orders.db.
set -eu
exec uvicorn --app-dir "$(dirname "$0")" app:app --port "${PORT:-8000}"
