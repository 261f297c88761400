/** The title of the page that is shown, as its heading has set it. */
let shown = "";
const listeners = new Set<() => void>();

export function pageTitle(): string {
  return shown;
}

export function onPageTitle(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function setPageTitle(title: string): void {
  shown = title;
  for (const listener of listeners) {
    listener();
  }
}

/** Returns the title of a tab: the number of what waits for a person, the page, and the program. */
export function tabTitle(page: string, waiting = "0"): string {
  const title = page ? `${page} · Rota` : "Rota";
  return waiting === "0" ? title : `(${waiting}) ${title}`;
}
