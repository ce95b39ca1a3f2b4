"""A day's work of the application."""

from django.core.management.base import BaseCommand
from shop.models import Customer, Order


class Command(BaseCommand):
    """Orders come, change and go."""

    def handle(self, *args, **options):
        """Work."""
        Customer.objects.bulk_create(Customer(name=f"c{n}", email=f"{n}@example.org") for n in range(300))
        everybody = list(Customer.objects.all())
        Order.objects.bulk_create(Order(customer=one, note="x") for one in everybody)
        for order in Order.objects.order_by("id")[:40]:
            order.state = "sent"
            order.save()
        Order.objects.filter(id__in=list(Order.objects.order_by("-id").values_list("id", flat=True)[:20])).delete()
        Customer.objects.order_by("id").last().delete()
