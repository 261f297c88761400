import { ofBase } from "../../base";

/** What was typed survives a page that is left or reloaded, in this tab: for each thing that is edited by itself. */
const KEY = ofBase("rota.draft");

const keyOf = (name: string | undefined) => (name === undefined ? KEY : `${KEY}.${name}`);

/** Returns the draft that this tab has of a thing; `null` for none. */
export function keptDraft(name: string | undefined): string | null {
  return sessionStorage.getItem(keyOf(name));
}

/** Keeps a draft, or none. Returns whether the browser had room for it: an older draft stays if not. */
export function keepDraft(name: string | undefined, text: string | undefined): boolean {
  if (text === undefined) {
    sessionStorage.removeItem(keyOf(name));
    return true;
  }
  try {
    sessionStorage.setItem(keyOf(name), text);
    return true;
  } catch {
    return false;
  }
}
