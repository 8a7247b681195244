#!/bin/sh
# Starts the shop at http://127.0.0.1:$PORT, with its data in shop.db: customers ann and bob, and 100,000 lamps.
set -eu
export PYTHONPATH="$(cd "$(dirname "$0")/../.." && pwd)${PYTHONPATH:+:$PYTHONPATH}"
python -m examples.shop_django.manage open_shop
exec gunicorn examples.shop_django.wsgi --bind "127.0.0.1:${PORT:-8000}" --workers 2 --threads 8
