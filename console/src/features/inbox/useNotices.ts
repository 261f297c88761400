import { useQueryClient } from "@tanstack/react-query";
import { useNavigate, useRouter } from "@tanstack/react-router";
import { useEffect, useRef, useSyncExternalStore } from "react";
import { isSignedIn, onSignIn } from "../../api/token";
import { BASE, ofBase } from "../../base";
import { useNamespace } from "../../namespace";
import { useApprovals } from "../workflows/useApprovals";
import { knownKeys, type Notice, newNotices, noticesOf } from "./notices";
import { onOpened, PUSH_QUERY, pushRegistration, renewPush } from "./push";
import { useWaiting } from "./useWaiting";

/** What this browser does when something new waits for a person. */
const KEYS = { notifications: ofBase("rota.notifications"), sound: ofBase("rota.sound") };
type Setting = keyof typeof KEYS;

const listeners = new Set<() => void>();

/** Whether this browser offers notifications: over HTTPS and on this machine. */
export const CAN_NOTIFY = isSecureContext && "Notification" in window;

function isOn(setting: Setting): boolean {
  const isWanted = localStorage.getItem(KEYS[setting]) === "on";
  return isWanted && (setting === "sound" || (CAN_NOTIFY && Notification.permission === "granted"));
}

export function useSetting(setting: Setting): boolean {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      addEventListener("storage", listener);
      return () => {
        listeners.delete(listener);
        removeEventListener("storage", listener);
      };
    },
    () => isOn(setting),
  );
}

/** Turns a setting on or off. Fails if the browser's user has refused notifications. */
export async function set(setting: Setting, on: boolean): Promise<void> {
  if (on && setting === "notifications" && (await Notification.requestPermission()) !== "granted") {
    throw new Error("notifications of this site are refused: allow them in the settings of the browser");
  }
  localStorage.setItem(KEYS[setting], on ? "on" : "off");
  for (const listener of listeners) {
    listener();
  }
  if (on && setting === "sound") {
    await play();
  }
}

let audio: AudioContext | undefined;

/** Plays a short tone, in one window of the browser. */
async function play(): Promise<void> {
  audio ??= new AudioContext();
  // A browser may refuse a tone before the first click.
  await audio.resume();
  const [tone, volume] = [audio.createOscillator(), audio.createGain()];
  volume.gain.setValueAtTime(0.15, audio.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + 0.4);
  tone.frequency.value = 660;
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.4);
}

/** Acts in one window of the browser alone, where browsers offer locks. */
function inOneWindow(act: () => void): void {
  if (!navigator.locks) {
    act();
    return;
  }
  // The others find the lock held, or do the same a moment later, when the first one has it still.
  void navigator.locks.request(ofBase("rota-sound"), { ifAvailable: true }, async (lock) => {
    if (lock) {
      act();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  });
}

/** Notifies of what begins to wait for a person while the page is open. What waited before is only counted. */
export function useNotices(): void {
  const namespace = useNamespace();
  const navigate = useNavigate();
  const router = useRouter();
  const cache = useQueryClient();
  const isIn = useSyncExternalStore(onSignIn, isSignedIn);
  const waiting = useWaiting();
  const approvals = useApprovals();
  const known = useRef<{ namespace: string; keys: ReadonlySet<string> }>(undefined);
  const isComplete = waiting.isSuccess && approvals.isSuccess;
  const [tasks, all] = [waiting.data?.tasks, approvals.data?.all];
  const isPart = Boolean(waiting.data?.more || waiting.data?.isCut || approvals.data?.more);
  useEffect(() => {
    const renew = async () => {
      if (await renewPush()) {
        // The switch in the inbox may have been read before.
        await cache.invalidateQueries({ queryKey: PUSH_QUERY });
      }
    };
    if (isIn) {
      renew().catch(() => {});
    }
  }, [isIn, cache]);
  useEffect(() => onOpened((path) => void navigate({ to: path })), [navigate]);
  useEffect(() => {
    if (!isComplete) {
      return;
    }
    const now = noticesOf(tasks ?? [], all ?? []);
    const before = known.current;
    const isSame = before?.namespace === namespace;
    known.current = { namespace, keys: knownKeys(isSame && isPart ? before.keys : [], now) };
    if (!isSame) {
      return;
    }
    const fresh = newNotices(before.keys, now);
    if (fresh.length === 0) {
      return;
    }
    if (isOn("sound")) {
      inOneWindow(() => void play().catch(() => {}));
    }
    // Who looks at the inbox sees it.
    const isSeen = router.state.location.pathname === "/inbox" && document.hasFocus();
    if (isOn("notifications") && !isSeen) {
      for (const notice of fresh) {
        void show(notice, (path) => void navigate({ to: path }));
      }
    }
  }, [isComplete, isPart, namespace, tasks, all, navigate, router]);
}

async function show({ key, title, text, path }: Notice, open: (path: string) => void): Promise<void> {
  try {
    // The same in several windows is shown once.
    const options = { body: text, tag: ofBase(key), icon: `${BASE}icon.svg` };
    const registration = await pushRegistration();
    if (registration) {
      await registration.showNotification(title, { ...options, data: { path } });
      return;
    }
    const shown = new Notification(title, options);
    shown.onclick = () => {
      window.focus();
      open(path);
      shown.close();
    };
  } catch {
    // Some browsers show notifications of service workers only.
  }
}
