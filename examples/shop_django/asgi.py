"""What an ASGI server serves: `uvicorn examples.shop_django.asgi:application`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.shop_django.settings")

from retrysafe.django.asgi import get_asgi_application

application = get_asgi_application()
