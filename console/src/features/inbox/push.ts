import { get, post } from "../../api/client";
import { BASE, ofBase } from "../../base";
import { type Subscription, subscribed } from "./subscription";

/** What the control plane knows of push messages to this browser. */
export interface WebPush {
  /** Key with which the browser subscribes; unset if the control plane sends none. */
  publicKey?: string;
  subscribed?: boolean;
}

const CURRENT = "browserSessions/current";
const KEY = ofBase("rota.push");
const ON = "on";

/** Whether this browser takes push messages: over HTTPS and on this machine. */
export const CAN_PUSH = isSecureContext && "serviceWorker" in navigator && "PushManager" in window;

/** Whether this browser is to be notified while no page is open, until its user signs out. */
const isWanted = () => localStorage.getItem(KEY) === ON;

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

/** Begins to notify this browser while no page is open. Fails if its user has refused notifications. */
export async function turnPushOn(publicKey: string): Promise<WebPush> {
  if ((await Notification.requestPermission()) !== "granted") {
    throw new Error("notifications of this site are refused: allow them in the settings of the browser");
  }
  const push = await subscribe(publicKey);
  localStorage.setItem(KEY, ON);
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

/** Subscribes again if this browser is to be notified: its session, its address or the key of the control plane may be new. */
export async function renewPush(): Promise<void> {
  if (!CAN_PUSH || !isWanted() || Notification.permission !== "granted") {
    return;
  }
  const { publicKey } = await readPush();
  if (publicKey) {
    await subscribe(publicKey);
  }
}

/** Returns what shows notifications in place of the page, so that one of the page and one of a push message are the same. */
export async function pushRegistration(): Promise<ServiceWorkerRegistration | undefined> {
  const registration =
    CAN_PUSH && isWanted() ? await navigator.serviceWorker.getRegistration(BASE) : undefined;
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
