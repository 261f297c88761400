/** Last part of a resource name. */
export function id(name: string | undefined): string {
  return name?.split("/").at(-1) ?? "";
}

/** Namespace and last part of a resource name, as pages have them in their addresses. */
export function placeOf(name: string | undefined): { namespace: string; id: string } {
  return { namespace: name?.split("/")[1] ?? "", id: id(name) };
}

/** Whether a text has the form of an id or a name of a resource: one with `/` or of dots alone would be another path. */
export function isName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(text);
}

/** Whether a text is the id of a task or workflow: a UUID. */
export function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
}

/** Creation of a resource in milliseconds; `NaN` if it has none. */
export function createdAt(resource: { createTime?: string } | undefined): number {
  return Date.parse(resource?.createTime ?? "");
}

/** Whether a name is that of a resource of a namespace. The feed of another namespace may still be read. */
export function isIn(namespace: string, name: string | undefined): boolean {
  return name?.startsWith(`namespaces/${namespace}/`) ?? false;
}

/** `TASK_STATE_INPUT_REQUIRED` as `input required`. */
export function word(value: string | undefined, prefix: string): string {
  return (value ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");
}

/** Returns a number of things in words: `1 task`, `2 tasks`. */
export function counted(count: number | string, one: string, many = `${one}s`): string {
  return `${count} ${Number(count) === 1 ? one : many}`;
}

/** Milliseconds as `3 s`, `12 min`, `5 h` or `2 d`. */
export function span(millis: number): string {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 120) {
    return `${seconds} s`;
  }
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) {
    return `${minutes} min`;
  }
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

/** Millionths of a dollar as `$0.012`. */
export function dollars(micro: string | number | undefined): string {
  const value = Number(micro ?? 0) / 1e6;
  return value === 0 ? "" : `$${value < 1 ? value.toFixed(3) : value.toFixed(2)}`;
}

/** Millionths of a dollar in cents, as `$0.01`. */
export const usd = (micro: string | number | undefined) => `$${(Number(micro ?? 0) / 1e6).toFixed(2)}`;

/** Decodes the base64 form of bytes in JSON. */
export function bytes(base64: string | undefined): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64 ?? ""), (char) => char.charCodeAt(0));
}

/** Parameters of a query: without empty ones, with several values of a list. */
export function query(values: Record<string, string | number | string[] | undefined>): string {
  const all = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== "") {
        all.append(key, String(one));
      }
    }
  }
  const encoded = all.toString();
  return encoded ? `?${encoded}` : "";
}
