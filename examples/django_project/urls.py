"""Which path has which view."""

from django.urls import path

from django_project import views

urlpatterns = [
    path("", views.page),
    path("stream", views.stream),
    path("upload", views.upload),
]
