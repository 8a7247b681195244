#!/bin/sh
# Starts the application at http://127.0.0.1:$PORT, with its bookings in bookings.db.
set -eu
exec gunicorn --pythonpath "$(dirname "$0")" app:app --bind "127.0.0.1:${PORT:-8000}" --workers 2 --threads 8
