import { ofBase } from "../base";
import { removeDrafts } from "../drafts";
import { ApiError, Code, call, get, post } from "./client";
import {
  EVERYONE,
  expire,
  isSignedIn,
  needsNoToken,
  sessionOwner,
  signIn,
  signInWithoutToken,
  signOut,
  takeCode,
  takeRefusal,
} from "./token";
import type { BrowserSession } from "./types";

const CURRENT = "browserSessions/current";
const SIGNED_OUT = "out";
/** Notifies the other windows of the browser, which have the same session, of its owner, or with `SIGNED_OUT`. */
let windows: BroadcastChannel | undefined;

/** How people sign in besides with a token. */
export interface SignInOptions {
  /** Name of their issuer. */
  name?: string;
  /** Where a browser begins to sign in; nowhere if it is not set. */
  browserPath?: string;
}

/** Returns who a session belongs to, as the browser keeps it: a person, or all holders of the token of a role. */
export const ownerOf = ({ subject, role }: BrowserSession) =>
  subject ? `person ${subject}` : `token ${role}`;

export function signInOptions(): Promise<SignInOptions> {
  return get("signInOptions");
}

/** Signs in with a token, which the server exchanges for the cookie of a session. */
export async function openSession(token: string): Promise<void> {
  const headers = { Authorization: `Bearer ${token}` };
  const owner = ownerOf(await call<BrowserSession>("POST", "browserSessions", {}, undefined, headers));
  enter(owner);
  windows?.postMessage(owner);
}

/** Begins or continues the pages of who has signed in. Those of another person, with their records and texts, are loaded again. */
function enter(owner: string): void {
  removeDrafts(owner);
  if ((sessionOwner() ?? owner) !== owner) {
    location.reload();
    return;
  }
  // A message of another window may have done it meanwhile.
  if (!isSignedIn()) {
    if (owner === EVERYONE) {
      signInWithoutToken();
    } else {
      signIn(owner);
    }
  }
}

/** Ends the pages of who has signed out, with what they have typed. */
function leave(reason = ""): void {
  removeDrafts();
  signOut(reason);
}

async function currentOwner(): Promise<string> {
  try {
    return ownerOf(await get<BrowserSession>(CURRENT));
  } catch (error) {
    if (error instanceof ApiError && error.code === Code.NOT_FOUND) {
      return EVERYONE;
    }
    throw error;
  }
}

/** Continues the session of this browser. Fails if there is none and one is required. */
export async function resumeSession(): Promise<void> {
  enter(await currentOwner());
}

/** Ends the session of this browser, in all of its windows. */
export async function closeSession(): Promise<void> {
  try {
    await post(`${CURRENT}:signOut`);
    leave();
  } catch (error) {
    const isOver = error instanceof ApiError && error.code === Code.UNAUTHENTICATED;
    leave(isOver ? "" : `This browser could not be signed out: ${describe(error)}.`);
  }
  windows?.postMessage(SIGNED_OUT);
}

/** Signs in by the code of a link, if the page was opened by one, or continues the session of the browser. */
export async function startSession(): Promise<void> {
  windows = new BroadcastChannel(ofBase("rota.session"));
  windows.onmessage = ({ data }) => {
    if (data === SIGNED_OUT) {
      if (!needsNoToken()) {
        leave();
      }
      return;
    }
    if (isSignedIn() && data !== sessionOwner()) {
      // The page is out of sight before it is known that it is loaded again.
      expire("Sign in again: another person has signed in in another window.");
    }
    if (!isSignedIn()) {
      void resumeSession().catch(() => {});
    }
  };
  const code = takeCode();
  let refused: unknown = takeRefusal();
  if (code) {
    try {
      const redeemed = await post<{ token?: string }>("system:redeemSignInCode", { code });
      await openSession(redeemed.token ?? "");
      return;
    } catch (error) {
      refused = error;
    }
  }
  // Who is signed in already stays so. A window that comes back from an issuer brings the others back, too.
  await resumeSession().then(
    () => windows?.postMessage(sessionOwner()),
    () => refused && signOut(describe(refused)),
  );
}

function describe(error: unknown): string {
  return error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(": ") : String(error);
}
