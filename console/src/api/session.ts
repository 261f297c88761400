import { ofBase } from "../base";
import { removeDrafts } from "../drafts";
import { ApiError, Code, call, get, post } from "./client";
import {
  EVERYONE,
  isExpired,
  isSignedIn,
  needsNoToken,
  signIn,
  signInWithoutToken,
  signOut,
  takeCode,
  takeRefusal,
} from "./token";
import type { BrowserSession } from "./types";

const CURRENT = "browserSessions/current";
/** Notifies the other windows of the browser, which have the same session. */
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
  const session = await call<BrowserSession>("POST", "browserSessions", {}, undefined, headers);
  enter(ownerOf(session));
  windows?.postMessage("in");
}

/** Begins or continues the pages of who has signed in. */
function enter(owner: string): void {
  removeDrafts(owner);
  if (owner === EVERYONE) {
    signInWithoutToken();
  } else {
    signIn(owner);
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
  windows?.postMessage("out");
}

/** Signs in by the code of a link, if the page was opened by one, or continues the session of the browser. */
export async function startSession(): Promise<void> {
  windows = new BroadcastChannel(ofBase("rota.session"));
  windows.onmessage = ({ data }) => {
    if (data === "in" && !isSignedIn()) {
      void resumeSession().catch(() => {});
    } else if (data === "out" && !needsNoToken()) {
      removeDrafts();
      if (isSignedIn() || isExpired()) {
        signOut();
      }
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
    () => windows?.postMessage("in"),
    () => refused && signOut(describe(refused)),
  );
}

function describe(error: unknown): string {
  return error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(": ") : String(error);
}
