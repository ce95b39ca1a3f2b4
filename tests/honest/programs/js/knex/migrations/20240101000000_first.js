exports.up = (knex) =>
  knex.schema
    .createTable("books", (table) => { table.increments(); table.string("title"); table.timestamps(true, true); })
    .createTable("authors", (table) => { table.increments(); table.string("name"); });
exports.down = (knex) => knex.schema.dropTable("authors").dropTable("books");
