// Drizzle ORM: migrations of a folder, and a day's work; `drizzle-kit push` has a schema of its own.
const { drizzle } = require("drizzle-orm/node-postgres");
const { migrate } = require("drizzle-orm/node-postgres/migrator");
const { Pool } = require("pg");
const { eq, lt } = require("drizzle-orm");
const schema = require("./drizzle/schema.js");
const pool = new Pool();
const db = drizzle(pool);
const steps = {
  migrate: () => migrate(db, { migrationsFolder: __dirname + "/drizzle/migrations" }),
  async work() {
    await db.insert(schema.users).values([...Array(150).keys()].map((n) => ({ name: "u" + n })));
    const some = await db.select().from(schema.users).limit(20);
    for (const one of some) await db.update(schema.users).set({ name: "x" }).where(eq(schema.users.id, one.id));
    await db.transaction(async (tx) => { await tx.delete(schema.users).where(lt(schema.users.id, 10)); });
  },
};
steps[process.argv[2]]().then(() => pool.end());
