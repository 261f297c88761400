// Creates a task, waits for it and reads its result, with the types that openapi-typescript makes from the document.
import createClient from "openapi-fetch";
import { expect, test } from "vitest";
import type { paths } from "../src/api/schema";

declare const process: { env: Record<string, string | undefined> };
const { ROTA_ENDPOINT = "", ROTA_TOKEN = "" } = process.env;

test("a task is created, watched and read", { timeout: 120_000 }, async () => {
  const client = createClient<paths>({
    baseUrl: ROTA_ENDPOINT,
    headers: { Authorization: `Bearer ${ROTA_TOKEN}` },
  });
  const create = () =>
    client.POST("/api/v1/namespaces/{namespace}/tasks", {
      params: { path: { namespace: "default" }, header: { "Idempotency-Key": "typescript" } },
      body: {
        spec: {
          target: { agent: "shell" },
          runtime: { command: { shell: "echo hello from TypeScript" } },
        },
      },
    });
  const created = await create();
  expect(created.error).toBeUndefined();
  const name = created.data?.name ?? "";
  // The same key creates no second task.
  expect((await create()).data?.name).toBe(name);

  const path = { namespace: "default", task: name.split("/").at(-1) ?? "" };
  // A stream ends with its task.
  const log = await client.GET("/api/v1/namespaces/{namespace}/tasks/{task}:watch", {
    params: { path },
    headers: { Accept: "application/x-ndjson" },
    parseAs: "text",
  });
  expect(log.data).toContain("TASK_STATE_SUCCEEDED");

  const { data: task } = await client.GET("/api/v1/namespaces/{namespace}/tasks/{task}", {
    params: { path },
  });
  expect(task?.status?.state).toBe("TASK_STATE_SUCCEEDED");
  expect(task?.status?.result?.text).toContain("hello from TypeScript");

  // Errors have the form of the document, too.
  const missing = await client.GET("/api/v1/namespaces/{namespace}/tasks/{task}", {
    params: { path: { namespace: "default", task: "no-such-task" } },
  });
  expect(missing.error?.code).toBe(5);
});
