CREATE TABLE "users" ("id" serial PRIMARY KEY NOT NULL, "name" text NOT NULL);
--> statement-breakpoint
CREATE TABLE "posts" ("id" serial PRIMARY KEY NOT NULL, "author" integer, "body" text);
