ALTER TABLE "posts" ADD CONSTRAINT "posts_author_users_id_fk" FOREIGN KEY ("author") REFERENCES "users"("id");
--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "nick" text;
--> statement-breakpoint
UPDATE "users" SET "nick" = "name";
--> statement-breakpoint
ALTER TABLE "users" DROP COLUMN "nick";
