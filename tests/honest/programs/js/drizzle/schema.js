const { pgTable, serial, text, integer, index } = require("drizzle-orm/pg-core");
const users = pgTable("users", { id: serial("id").primaryKey(), name: text("name").notNull() });
const posts = pgTable(
  "posts",
  { id: serial("id").primaryKey(), author: integer("author").references(() => users.id), body: text("body") },
  (table) => [index("posts_author").on(table.author)],
);
module.exports = { users, posts };
