const { pgTable, serial, text, integer } = require("drizzle-orm/pg-core");
const users = pgTable("users", { id: serial("id").primaryKey(), name: text("name").notNull(), email: text("email") });
const posts = pgTable("posts", {
  id: serial("id").primaryKey(), author: integer("author").references(() => users.id), body: text("body").default(""),
});
module.exports = { users, posts };
