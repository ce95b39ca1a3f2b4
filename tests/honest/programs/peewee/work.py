"""Peewee: makes tables, works, migrates and takes them away; the step is the argument."""

import os
import sys

import peewee
from playhouse.migrate import PostgresqlMigrator, migrate

database = peewee.PostgresqlDatabase(os.environ["PGDATABASE"], prefer_psycopg3=True)


class Base(peewee.Model):
    """In that database."""

    class Meta:
        database = database


class Person(Base):
    """Somebody."""

    name = peewee.TextField()


class Pet(Base):
    """What somebody keeps."""

    owner = peewee.ForeignKeyField(Person, backref="pets", on_delete="CASCADE")
    name = peewee.TextField(index=True)


def work():
    """People come, change and go."""
    database.create_tables([Person, Pet])
    with database.atomic():
        Person.insert_many([{"name": f"p{n}"} for n in range(200)]).execute()
    for person in Person.select().limit(30):
        Pet.create(owner=person, name="cat")
    Person.update(name="x").where(Person.id < 20).execute()
    Pet.delete().where(Pet.id < 10).execute()
    Person.get_by_id(150).delete_instance(recursive=True)


def change():
    """Migrate."""
    migrator = PostgresqlMigrator(database)
    migrate(
        migrator.add_column("person", "age", peewee.IntegerField(null=True)),
        migrator.rename_column("pet", "name", "called"),
        migrator.drop_not_null("pet", "called"),
        migrator.add_index("person", ("age",), False),
    )


def away():
    """Take them away."""
    database.drop_tables([Pet, Person])


{"work": work, "change": change, "away": away}[sys.argv[1]]()
