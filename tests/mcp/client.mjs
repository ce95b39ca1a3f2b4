// The tools by the SDK for TypeScript: node client.mjs FOLDER-OF-THE-SDK stdio PYTHON CONFIG | http URL TOKEN
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const require = createRequire(process.argv[2] + "/package.json");
const load = (name) => import(pathToFileURL(require.resolve("@modelcontextprotocol/sdk/" + name)).href);
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const [way, one, two] = process.argv.slice(3);
const transport =
  way === "stdio"
    ? new StdioClientTransport({ command: one, args: ["-m", "pgwitness", "mcp", "--config", two] })
    : new StreamableHTTPClientTransport(new URL(one), { requestInit: { headers: { authorization: "Bearer " + two } } });
const client = new Client({ name: "other", version: "1" });
await client.connect(transport);
const purpose = "TICKET-12: another client";
const call = (name, given) => client.callTool({ name, arguments: given });
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const read = await call("query", { sql: "SELECT id, body FROM ticket WHERE id = $1", purpose, parameters: [9] });
const refused = await call("query", { sql: "DELETE FROM ticket", purpose });
const policies = await client.readResource({ uri: "pgwitness://policies" });
console.log(JSON.stringify({ tools, rows: read.structuredContent.rows, refused: refused.isError, why: refused.content[0].text, policies: policies.contents[0].text }));
await client.close();
