import { sessionOwner } from "./api/token";
import { ofBase } from "./base";

/** What was typed survives a page that is left or reloaded, in this tab: for each thing that is edited by itself. */
const KEY = ofBase("rota.draft");
/** Drafts that are kept at most: the oldest one makes room for another. */
const MAX_DRAFTS = 20;

/** A draft as the tab has it. */
interface Stored {
  /** Who has typed it. */
  owner: string;
  text: string;
  /** Of the last change, in milliseconds. */
  time: number;
}

const keyOf = (name: string | undefined) => (name === undefined ? KEY : `${KEY}.${name}`);

const keys = () =>
  Array.from({ length: sessionStorage.length }, (_, at) => sessionStorage.key(at) ?? "").filter(
    (key) => key === KEY || key.startsWith(`${KEY}.`),
  );

/** Returns the draft of a key; what is none has no owner. */
function stored(key: string): Stored {
  try {
    const found: Partial<Stored> = JSON.parse(sessionStorage.getItem(key) ?? "{}") ?? {};
    return { owner: found.owner ?? "", text: found.text ?? "", time: found.time ?? 0 };
  } catch {
    return { owner: "", text: "", time: 0 };
  }
}

/** Whether a specification may have secrets: also one that cannot be read yet, while it is typed. Lists of names count, too. */
export function hasSecrets(text: string): boolean {
  return /(?:^|[{,])[ \t?-]*["']?secrets["']?\s*:/m.test(text);
}

/** Returns the draft that this tab has of a thing; `null` for none. That of another person is removed. */
export function keptDraft(name: string | undefined): string | null {
  const { owner, text } = stored(keyOf(name));
  if (owner !== sessionOwner()) {
    sessionStorage.removeItem(keyOf(name));
    return null;
  }
  return text;
}

/**
 * Keeps a draft, or none. Returns whether it is kept: an older one stays if the browser has no room for it, and none if it has secrets.
 */
export function keepDraft(name: string | undefined, text: string | undefined): boolean {
  if (text === undefined || hasSecrets(text)) {
    sessionStorage.removeItem(keyOf(name));
    return text === undefined;
  }
  try {
    const draft = { owner: sessionOwner(), text, time: Date.now() };
    sessionStorage.setItem(keyOf(name), JSON.stringify(draft));
  } catch {
    return false;
  }
  const all = keys();
  if (all.length > MAX_DRAFTS) {
    const byAge = all.map((key) => ({ key, time: stored(key).time })).sort((a, b) => a.time - b.time);
    for (const { key } of byAge.slice(0, -MAX_DRAFTS)) {
      sessionStorage.removeItem(key);
    }
  }
  return true;
}

/** Removes the drafts of this tab, except those of an owner. */
export function removeDrafts(except?: string): void {
  for (const key of keys()) {
    if (except === undefined || stored(key).owner !== except) {
      sessionStorage.removeItem(key);
    }
  }
}
