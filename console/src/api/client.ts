import { EventSourceParserStream } from "eventsource-parser/stream";
import { BASE } from "../base";
import { expire, isSignedIn, setRole, signInChanges } from "./token";

/** Codes of gRPC, as errors have them. */
export const Code = {
  UNKNOWN: 2,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  FAILED_PRECONDITION: 9,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
};
/** Those with which the same call may succeed later. */
const TRANSIENT = [1, 2, 4, 8, 10, 13, 14];
/** Time without a byte after which a stream is cut off: the server sends a comment every 15 s. */
const SILENCE = 45_000;
/** Time after which a call that has not even begun is reported: the browser may have no connection left for it. */
const SLOW = 10_000;

/** Error of a call, as the API returns it. */
export class ApiError extends Error {
  /** Whether the call was made all the same: the next one is another call. */
  readonly isDone: boolean = false;

  constructor(
    readonly code: number,
    message: string,
    readonly reason = "",
    readonly hint = "",
  ) {
    super(message);
  }
}

/** Whether the same call may succeed at the next try. */
export function isTransient(error: unknown): boolean {
  return !(error instanceof ApiError) || TRANSIENT.includes(error.code);
}

interface Status {
  code?: number;
  message?: string;
  details?: {
    "@type"?: string;
    reason?: string;
    links?: { description?: string }[];
    fieldViolations?: { field?: string; description?: string }[];
  }[];
}

/** Returns the error that a `google.rpc.Status` describes. */
export function errorOf(status: Status, code: number): ApiError {
  const details = status.details ?? [];
  const fields = details.flatMap((detail) => detail.fieldViolations ?? []);
  const named = fields
    .map((one) => `${one.field}: ${one.description}`)
    .filter((one) => !status.message?.includes(one));
  const hints = details.flatMap((detail) => detail.links ?? []).map((link) => link.description ?? "");
  return new ApiError(
    status.code ?? code,
    status.message ?? "the call has failed",
    details.find((detail) => detail.reason)?.reason,
    [...named, ...hints].filter(Boolean).join("; "),
  );
}

async function failure(response: Response): Promise<ApiError> {
  const codes: Record<number, number> = {
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
  };
  const code = codes[response.status] ?? (response.status >= 500 ? Code.UNAVAILABLE : Code.UNKNOWN);
  try {
    return errorOf(await response.json(), code);
  } catch {
    // Not from the API: a proxy, for example.
    return new ApiError(code, `the server has answered with status ${response.status}`);
  }
}

let slow = 0;
const slowListeners = new Set<() => void>();

/** Whether a call has waited for long without an answer. */
export function isSlow(): boolean {
  return slow > 0;
}

export function onSlow(listener: () => void): () => void {
  slowListeners.add(listener);
  return () => slowListeners.delete(listener);
}

function count(change: number): void {
  slow += change;
  for (const listener of slowListeners) {
    listener();
  }
}

/** Asks to sign in again if a call was refused that had the session. */
function notice(error: ApiError, signIns: number): void {
  if (error.code === Code.UNAUTHENTICATED && isSignedIn() && signIns === signInChanges()) {
    expire(`Sign in again, to continue where you were: ${error.message}.`);
  }
}

/** Returns the address of a call. */
export const address = (path: string) => `${BASE}api/v1/${path}`;

/** Sends a request, and returns its response once it has begun. */
async function send(path: string, init: RequestInit): Promise<Response> {
  const signIns = signInChanges();
  let waited = false;
  const timer = setTimeout(() => {
    waited = true;
    count(1);
  }, SLOW);
  let response: Response;
  try {
    response = await fetch(address(path), init);
  } catch (error) {
    if (init.signal?.aborted) {
      throw error;
    }
    throw new ApiError(Code.UNAVAILABLE, "the control plane cannot be reached");
  } finally {
    clearTimeout(timer);
    if (waited) {
      count(-1);
    }
  }
  if (!response.ok) {
    const error = await failure(response);
    notice(error, signIns);
    throw error;
  }
  if (signIns === signInChanges()) {
    setRole(response.headers.get("rota-role"));
  }
  return response;
}

/** Makes a call, such as `GET namespaces/default/tasks`. */
export async function call<T>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
  headers?: Record<string, string>,
): Promise<T> {
  const init: RequestInit = { method, signal: signal ?? null };
  if (body !== undefined) {
    init.headers = { ...headers, "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const response = await send(path, init);
  try {
    return await response.json();
  } catch (error) {
    throw cutOff(error, signal);
  }
}

/** Returns the error of a response whose body cannot be read: those of the browser have no text for people. */
function cutOff(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof ApiError || signal?.aborted) {
    return error;
  }
  const isNoJson = error instanceof SyntaxError;
  return new ApiError(
    Code.UNAVAILABLE,
    isNoJson ? "the answer is not that of a control plane" : "the connection was interrupted",
  );
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>("GET", path, undefined, signal);
export const post = <T>(path: string, body: unknown = {}, headers?: Record<string, string>) =>
  call<T>("POST", path, body, undefined, headers);
export const put = <T>(path: string, body: unknown, headers?: Record<string, string>) =>
  call<T>("PUT", path, body, undefined, headers);
export const patch = <T>(path: string, body: unknown, headers?: Record<string, string>) =>
  call<T>("PATCH", path, body, undefined, headers);

/** Reads the first bytes of a content that is no JSON: at most `limit`. */
export async function content(
  path: string,
  limit: number,
  signal?: AbortSignal,
): Promise<{ data: Uint8Array<ArrayBuffer>; isWhole: boolean }> {
  const response = await send(path, { signal: signal ?? null });
  const reader = response.body?.getReader();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  let isWhole = true;
  try {
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) {
        break;
      }
      parts.push(part.value);
      size += part.value.length;
      if (size > limit) {
        isWhole = false;
        break;
      }
    }
  } catch (error) {
    throw cutOff(error, signal);
  } finally {
    reader?.cancel().catch(() => {});
  }
  const data = new Uint8Array(await new Blob(parts).arrayBuffer()).subarray(0, limit);
  return { data, isWhole };
}

/** A key by which the server recognizes a call that is repeated. Browsers offer `randomUUID` only over HTTPS. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** Reads a stream of server-sent events until the server has ended it. One that is aborted, cut off or silent for too long fails. */
export async function stream<T>(
  path: string,
  signal: AbortSignal,
  receive: (message: T) => void,
  opened: () => void = () => {},
): Promise<void> {
  const signIns = signInChanges();
  const response = await send(path, { headers: { Accept: "text/event-stream" }, signal });
  if (!response.body) {
    throw new ApiError(Code.UNAVAILABLE, "the stream is empty");
  }
  opened();
  const silence = new AbortController();
  const silent = () => silence.abort(new ApiError(Code.UNAVAILABLE, "the control plane is silent"));
  let timer = setTimeout(silent, SILENCE);
  const watchdog = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      clearTimeout(timer);
      timer = setTimeout(silent, SILENCE);
      controller.enqueue(chunk);
    },
  });
  const reader = response.body
    .pipeThrough(watchdog, { signal: silence.signal })
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        throw new ApiError(Code.UNAVAILABLE, "the stream was cut off");
      }
      if (value.event === "end") {
        return;
      }
      if (value.event === "error") {
        const error = errorOf(JSON.parse(value.data), Code.UNAVAILABLE);
        notice(error, signIns);
        throw error;
      }
      receive(JSON.parse(value.data) as T);
    }
  } catch (error) {
    throw cutOff(error, signal);
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}
