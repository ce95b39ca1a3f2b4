// Sequelize: sync, with force and alter, and a day's work.
const { Sequelize, DataTypes, Op } = require("sequelize");
const db = new Sequelize(process.env.PGDATABASE, process.env.PGUSER, "", {
  host: process.env.PGHOST, port: +process.env.PGPORT, dialect: "postgres", logging: false,
});
const User = db.define("user", { name: DataTypes.STRING, email: DataTypes.STRING });
const Post = db.define("post", { title: DataTypes.STRING, body: DataTypes.TEXT });
User.hasMany(Post, { onDelete: "CASCADE" });
Post.belongsTo(User);

async function work() {
  const users = await User.bulkCreate([...Array(200).keys()].map((n) => ({ name: "u" + n, email: n + "@example.org" })));
  await Post.bulkCreate(users.map((user) => ({ title: "t", body: "b", userId: user.id })));
  for (const user of users.slice(0, 20)) await user.update({ name: "changed" });
  await db.transaction(async (transaction) => {
    await Post.destroy({ where: { id: { [Op.lt]: 15 } }, transaction });
  });
  await User.findAll({ include: Post, limit: 20 });
}

const steps = {
  force: () => db.sync({ force: true }),
  alter: () => db.sync({ alter: true }),
  work,
  truncate: () => Post.destroy({ truncate: true }),
  drop: () => db.drop(),
};
steps[process.argv[2]]().then(() => db.close());
