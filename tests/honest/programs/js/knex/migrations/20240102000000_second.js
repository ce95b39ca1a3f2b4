exports.up = async (knex) => {
  await knex.schema.alterTable("books", (table) => { table.integer("pages"); table.dropTimestamps(); });
  await knex("books").update({ pages: 100 });
};
exports.down = (knex) => knex.schema.alterTable("books", (table) => { table.dropColumn("pages"); table.timestamps(true, true); });
