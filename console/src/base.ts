/** Returns the path of a page's base, with a slash at its end: the root, unless the server has named another one. */
export function baseOf(named: string | undefined): string {
  return named?.startsWith("/") && named.endsWith("/") ? named : "/";
}

/**
 * Path below which the control plane serves its pages and its API. The same files are built for each: the server writes it into the
 * page.
 */
export const BASE = baseOf(
  globalThis.document?.querySelector<HTMLMetaElement>('meta[name="rota-base"]')?.content,
);

/** Returns a name that other control planes of the same host do not have: what a browser keeps and shares belongs to all of its pages. */
export function ofBase(name: string, base = BASE): string {
  return base === "/" ? name : `${name}@${base}`;
}

/** Returns the address of a page below the base path; `undefined` if it is there already. A link may name the server without it. */
export function movedBelow(base: string, path: string): string | undefined {
  const isBelow = `${path}/`.startsWith(base);
  return isBelow ? undefined : base + path.replace(/^\/+/, "");
}
