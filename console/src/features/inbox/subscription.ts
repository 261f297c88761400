import { bytes } from "../../api/format";

/** What the control plane needs of a browser's subscription. */
export interface Subscription {
  endpoint: string;
  p256dh: string;
  auth: string;
}

/** Returns the bytes of a key in base64url. */
export const bytesOf = (key: string) => bytes(key.replaceAll("-", "+").replaceAll("_", "/"));

const isSame = (one: ArrayBuffer | null, other: Uint8Array) =>
  one?.byteLength === other.length && new Uint8Array(one).every((byte, at) => byte === other[at]);

/** Subscribes a browser for messages of the control plane with this key, unless it is. */
export async function subscribed(
  manager: Pick<PushManager, "getSubscription" | "subscribe">,
  publicKey: string,
): Promise<Subscription> {
  const key = bytesOf(publicKey);
  let subscription = await manager.getSubscription();
  if (subscription && !isSame(subscription.options.applicationServerKey, key)) {
    // The control plane has another key since, or is another one.
    await subscription.unsubscribe();
    subscription = null;
  }
  subscription ??= await manager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  const { endpoint = "", keys = {} } = subscription.toJSON();
  return { endpoint, p256dh: keys.p256dh ?? "", auth: keys.auth ?? "" };
}
