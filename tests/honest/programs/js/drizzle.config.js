module.exports = {
  dialect: "postgresql",
  schema: `./drizzle/${process.env.HONEST_SCHEMA || "schema"}.js`,
  dbCredentials: {
    host: process.env.PGHOST, port: +process.env.PGPORT, user: process.env.PGUSER, password: "x",
    database: process.env.PGDATABASE, ssl: false,
  },
};
