exports.seed = async (knex) => {
  await knex("books").del();
  await knex("books").insert([...Array(120).keys()].map((n) => ({ title: "b" + n })));
  await knex("authors").del();
  await knex("authors").insert([...Array(30).keys()].map((n) => ({ name: "a" + n })));
};
