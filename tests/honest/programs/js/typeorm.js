// TypeORM: synchronize, dropSchema, migrations there and back, and a day's work.
require("reflect-metadata");
const { DataSource, EntitySchema } = require("typeorm");
const columns = (more) => ({ id: { type: "int", primary: true, generated: true }, ...more });
const Photo = new EntitySchema({
  name: "Photo", tableName: "photo",
  columns: columns({ name: { type: "varchar" }, views: { type: "int", default: 0 } }),
});
class First1700000000001 {
  async up(runner) {
    await runner.query('CREATE TABLE "album" ("id" SERIAL PRIMARY KEY, "name" text)');
    await runner.query('INSERT INTO "album" ("name") SELECT n::text FROM generate_series(1, 100) AS n');
  }
  async down(runner) { await runner.query('DROP TABLE "album"'); }
}
class Second1700000000002 {
  async up(runner) {
    await runner.query('ALTER TABLE "album" ADD "state" text NOT NULL DEFAULT \'\'');
    await runner.query('UPDATE "album" SET "state" = \'new\'');
  }
  async down(runner) { await runner.query('ALTER TABLE "album" DROP COLUMN "state"'); }
}
const source = (more) => new DataSource({
  type: "postgres", host: process.env.PGHOST, port: +process.env.PGPORT, username: process.env.PGUSER,
  database: process.env.PGDATABASE, entities: [Photo], migrations: [First1700000000001, Second1700000000002], ...more,
});
const steps = {
  synchronize: (db) => db.synchronize(),
  drop: (db) => db.synchronize(true),
  migrate: (db) => db.runMigrations(),
  revert: (db) => db.undoLastMigration(),
  async work(db) {
    const photos = db.getRepository("Photo");
    await photos.save([...Array(200).keys()].map((n) => ({ name: "p" + n })), { chunk: 50 });
    const some = await photos.find({ take: 20, order: { id: "ASC" } });
    for (const one of some) { one.views += 1; await photos.save(one); }
    await photos.remove(some.slice(0, 5));
    await photos.createQueryBuilder().update().set({ views: 3 }).where("id > :id", { id: 180 }).execute();
  },
  clear: (db) => db.getRepository("Photo").clear(),
};
(async () => {
  const db = await source({}).initialize();
  await steps[process.argv[2]](db);
  await db.destroy();
})();
