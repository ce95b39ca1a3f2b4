"""Tests of the application, which Django runs in a database of their own."""

from django.test import TestCase, TransactionTestCase
from shop.models import Customer


class Rolled(TestCase):
    """In a transaction that is rolled back."""

    def test_made(self):
        """A customer is there."""
        Customer.objects.bulk_create(Customer(name=str(n)) for n in range(100))
        self.assertEqual(Customer.objects.count(), 100)


class Flushed(TransactionTestCase):
    """Committed, and the tables emptied afterwards."""

    def test_made(self):
        """A customer is there."""
        Customer.objects.bulk_create(Customer(name=str(n)) for n in range(100))
        self.assertEqual(Customer.objects.count(), 100)
