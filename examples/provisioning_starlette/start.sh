#!/bin/sh
# Starts a provider of machines, and the application at http://127.0.0.1:$PORT. Ctrl-C ends both.
set -eu
here=$(dirname "$0")
provider_port="${PROVIDER_PORT:-9000}"
uvicorn --app-dir "$here" provider:app --port "$provider_port" &
provider=$!
PROVIDER_URL="http://127.0.0.1:$provider_port" uvicorn --app-dir "$here" app:app --port "${PORT:-8000}" &
app=$!
trap 'kill "$provider" "$app" 2>/dev/null; wait' EXIT
trap 'exit 0' INT TERM
wait "$app"
