import { setToken, token } from "./token";

/** Error of a call, as the API returns it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    message: string,
  ) {
    super(message);
  }
}

function headers(more?: Record<string, string>): Headers {
  const all = new Headers(more);
  const known = token();
  if (known) {
    all.set("Authorization", `Bearer ${known}`);
  }
  return all;
}

async function failure(response: Response): Promise<ApiError> {
  let message = `the server has answered with status ${response.status}`;
  let reason = "";
  try {
    const body = await response.json();
    const error = body.error ?? body;
    message = error.message ?? message;
    reason = error.status ?? "";
  } catch {
    // Not from the API: a proxy, for example.
  }
  if (response.status === 401) {
    setToken(null);
  }
  return new ApiError(response.status, reason, message);
}

/** Makes a call, such as `GET namespaces/default/tasks`. */
export async function call<T>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const init: RequestInit = { method, headers: headers() };
  if (body !== undefined) {
    init.headers = headers({ "Content-Type": "application/json" });
    init.body = JSON.stringify(body);
  }
  if (signal) {
    init.signal = signal;
  }
  let response: Response;
  try {
    response = await fetch(`/api/v1/${path}`, init);
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new ApiError(0, "UNREACHABLE", "the control plane cannot be reached");
  }
  if (!response.ok) {
    throw await failure(response);
  }
  return response.json();
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>("GET", path, undefined, signal);
export const post = <T>(path: string, body: unknown = {}) => call<T>("POST", path, body);
export const patch = <T>(path: string, body: unknown) => call<T>("PATCH", path, body);

/** Fails unless a token is accepted. */
export async function checkToken(given: string): Promise<void> {
  const options = { headers: { Authorization: `Bearer ${given}` } };
  const response = await fetch("/api/v1/namespaces/default/tasks?pageSize=1", options);
  // A token of another namespace is valid all the same.
  if (!response.ok && response.status !== 403) {
    throw await failure(response);
  }
}

/** Splits chunks of text into lines, of which the last may be incomplete. */
export class Lines {
  #rest = "";

  push(chunk: string): string[] {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.filter((line) => line.trim() !== "");
  }
}

/** Reads a stream of JSON lines until it ends or is aborted. */
export async function stream<T>(
  path: string,
  signal: AbortSignal,
  receive: (message: T) => void,
  opened: () => void = () => {},
): Promise<void> {
  const response = await fetch(`/api/v1/${path}`, { headers: headers(), signal });
  if (!response.ok || !response.body) {
    throw await failure(response);
  }
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = new Lines();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    for (const line of lines.push(value)) {
      const message = JSON.parse(line);
      if (message.error) {
        throw new ApiError(
          message.error.code ?? 0,
          message.error.status ?? "",
          message.error.message ?? "the stream has failed",
        );
      }
      receive(message as T);
    }
  }
}
