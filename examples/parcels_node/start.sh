#!/bin/sh
# Starts the service, and the gateway in front of it at http://127.0.0.1:$PORT. Ctrl-C ends both.
set -eu
here=$(dirname "$0")
export PARCELS_PORT="${PARCELS_PORT:-9000}"
node "$here/server.mjs" &
node=$!
retrysafe serve --config "$here/retrysafe.toml" --upstream "http://127.0.0.1:$PARCELS_PORT" \
    --listen "127.0.0.1:${PORT:-8000}" --store "${STORE:-sqlite:///parcels.db}" &
gateway=$!
trap 'kill "$node" "$gateway" 2>/dev/null; wait' EXIT
trap 'exit 0' INT TERM
wait "$gateway"
