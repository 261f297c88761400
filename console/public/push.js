// Shows what begins to wait for a person while no page is open. The inbox registers it for all pages below its path
// (src/features/inbox/push.ts).
const BASE = new URL(self.registration.scope).pathname;

/** A name that other control planes of the same host do not have, as in src/base.ts. */
const ofBase = (name) => (BASE === "/" ? name : `${name}@${BASE}`);

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("push", (event) => event.waitUntil(show(event.data.json())));
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data?.path ?? "/inbox"));
});

async function pages() {
  const all = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  return all.filter((page) => page.url.startsWith(self.registration.scope));
}

/** Shows each message, as browsers demand of subscriptions. One that a page shows as well has the same tag, and is shown once. */
async function show({ title, text, path, tag }) {
  await self.registration.showNotification(title, { body: text, tag: ofBase(tag), data: { path } });
}

async function open(path) {
  const [page] = await pages();
  if (page) {
    // The page opens it by itself, and keeps what it has.
    page.postMessage({ open: path });
    await page.focus();
  } else {
    await self.clients.openWindow(new URL(`.${path}`, self.registration.scope).href);
  }
}
