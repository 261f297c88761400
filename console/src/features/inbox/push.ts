import { get, post } from "../../api/client";
import { ownerOf } from "../../api/session";
import type { BrowserSession } from "../../api/types";
import { BASE, ofBase } from "../../base";
import { type Subscription, subscribed } from "./subscription";

/** What the control plane knows of push messages to this browser. */
export interface WebPush {
  /** Key with which the browser subscribes; unset if the control plane sends none. */
  publicKey?: string;
  subscribed?: boolean;
}

const CURRENT = "browserSessions/current";
/** Has whose session asked for push messages to this browser. */
const KEY = ofBase("rota.push");
export const PUSH_QUERY = ["webPush"];

/** Whether this browser takes push messages: over HTTPS and on this machine. */
export const CAN_PUSH = isSecureContext && "serviceWorker" in navigator && "PushManager" in window;

const owner = async () => ownerOf(await get<BrowserSession>(CURRENT));

export const readPush = (signal?: AbortSignal) => get<WebPush>(`${CURRENT}/webPush`, signal);

async function subscribe(publicKey: string): Promise<WebPush> {
  await navigator.serviceWorker.register(`${BASE}push.js`, { scope: BASE });
  const { pushManager } = await navigator.serviceWorker.ready;
  let subscription: Subscription;
  try {
    subscription = await subscribed(pushManager, publicKey);
  } catch (error) {
    throw new Error(`this browser gets no address at its push service: ${error}`);
  }
  return post<WebPush>(`${CURRENT}:subscribeWebPush`, subscription);
}

/** Begins to notify this browser while no page is open, until its user signs out. Fails if its user has refused notifications. */
export async function turnPushOn(publicKey: string): Promise<WebPush> {
  if ((await Notification.requestPermission()) !== "granted") {
    throw new Error("notifications of this site are refused: allow them in the settings of the browser");
  }
  const asking = await owner();
  const push = await subscribe(publicKey);
  localStorage.setItem(KEY, asking);
  return push;
}

export async function turnPushOff(): Promise<WebPush> {
  localStorage.removeItem(KEY);
  const push = await post<WebPush>(`${CURRENT}:unsubscribeWebPush`);
  const registration = await navigator.serviceWorker.getRegistration(BASE);
  await (await registration?.pushManager.getSubscription())?.unsubscribe();
  return push;
}

/** Forgets at a sign-out that this browser is to be notified: the next session may be another person's. */
export function forgetPush(): void {
  localStorage.removeItem(KEY);
}

/**
 * Subscribes again if this browser is to be notified for who is signed in: their session, its address or the key of the control plane may
 * be new. Returns whether it did.
 */
export async function renewPush(): Promise<boolean> {
  const asked = localStorage.getItem(KEY);
  if (!CAN_PUSH || asked === null || Notification.permission !== "granted" || (await owner()) !== asked) {
    return false;
  }
  const { publicKey } = await readPush();
  if (publicKey) {
    await subscribe(publicKey);
  }
  return Boolean(publicKey);
}

/** Returns what shows notifications in place of the page, so that one of the page and one of a push message are the same. */
export async function pushRegistration(): Promise<ServiceWorkerRegistration | undefined> {
  const isWanted = CAN_PUSH && localStorage.getItem(KEY) !== null;
  const registration = isWanted ? await navigator.serviceWorker.getRegistration(BASE) : undefined;
  return registration?.active ? registration : undefined;
}

/** Receives the path of a notification that was clicked while a page was open. */
export function onOpened(open: (path: string) => void): () => void {
  if (!CAN_PUSH) {
    return () => {};
  }
  const receive = ({ data }: MessageEvent<{ open?: string }>) => data.open && open(data.open);
  navigator.serviceWorker.addEventListener("message", receive);
  return () => navigator.serviceWorker.removeEventListener("message", receive);
}
