"""A column is renamed, another filled from what was there, a third goes."""

from django.db import migrations, models


def fill(apps, schema_editor):
    """Fill the new column of all rows, as data migrations do."""
    apps.get_model("shop", "Order").objects.filter(state="").update(state="old")


class Migration(migrations.Migration):
    """The second."""

    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RenameField("customer", "mail", "email"),
        migrations.AddField("order", "state", models.CharField(default="", max_length=9)),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AlterField("order", "state", models.CharField(default="new", max_length=9)),
        migrations.AddIndex("order", models.Index(fields=["state"], name="order_state")),
        migrations.RemoveField("order", "legacy"),
    ]
