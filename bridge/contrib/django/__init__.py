"""A Django app: ``runserver`` and ``serve`` with bridge.

Put ``"bridge.contrib.django"`` into INSTALLED_APPS, before ``django.contrib.staticfiles``.
"""
