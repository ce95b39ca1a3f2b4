"""Customers and their orders."""

from django.db import models


class Customer(models.Model):
    """A customer."""

    name = models.CharField(max_length=50)
    email = models.EmailField(default="")


class Order(models.Model):
    """What a customer ordered."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    note = models.TextField(default="")
    state = models.CharField(max_length=9, default="new")
