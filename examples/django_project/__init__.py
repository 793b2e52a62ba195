"""A small Django project without a database, to be served as WSGI or as ASGI.

Run:  bridge run django_project.wsgi:application --app-dir examples
or:   bridge run django_project.asgi:application --app-dir examples
Ask:  curl http://127.0.0.1:8000/  and  /stream  and  curl -F file=@FILE http://127.0.0.1:8000/upload
"""
