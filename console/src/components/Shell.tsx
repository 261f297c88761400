import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { isSlow, onSlow } from "../api/client";
import { FeedProvider, TASKS, WORKFLOWS } from "../api/feed";
import { closeSession } from "../api/session";
import { isExpired, isSignedIn, needsNoToken, onSignIn } from "../api/token";
import { useAlerts } from "../features/alerts/useAlerts";
import { forgetPush } from "../features/inbox/push";
import { useNotices } from "../features/inbox/useNotices";
import { useWaiting, useWaitingUpdates } from "../features/inbox/useWaiting";
import { useApprovals, useApprovalUpdates } from "../features/workflows/useApprovals";
import { setNamespace, useNamespace } from "../namespace";
import { useMayAct } from "./Acting";
import { Dialog } from "./Dialog";
import { lazyPart } from "./lazy";
import { PAGES } from "./pages";
import { SignIn } from "./SignIn";
import { onPageTitle, pageTitle, tabTitle } from "./title";

/** The library that searches by parts of names is loaded when it is opened. */
const Palette = lazyPart(() => import("./Palette"));

const isTyping = (target: EventTarget | null) =>
  target instanceof HTMLElement &&
  (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

/** Navigation around every page; the way in, if there is no token. */
export function Shell() {
  const isIn = useSyncExternalStore(onSignIn, isSignedIn);
  const isWaiting = useSyncExternalStore(onSlow, isSlow);
  const [help, setHelp] = useState(false);
  const [palette, setPalette] = useState(false);
  const navigate = useNavigate();
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.key === "k" && (event.ctrlKey || event.metaKey) && isSignedIn()) {
        event.preventDefault();
        setPalette((open) => !open);
        return;
      }
      if (
        !isSignedIn() ||
        document.querySelector("dialog[open]") ||
        isTyping(event.target) ||
        event.ctrlKey ||
        event.metaKey ||
        event.altKey
      ) {
        return;
      }
      const page = PAGES.find((page) => page.key === event.key);
      if (page) {
        void navigate({ to: page.to });
      } else if (event.key === "?") {
        setHelp(true);
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [navigate]);
  const expired = useSyncExternalStore(onSignIn, isExpired);
  if (!isIn && !expired) {
    return <SignIn />;
  }
  // What a person has typed stays, out of sight, until the same person has signed in again.
  return (
    <Feeds>
      {!isIn && <SignIn />}
      <div hidden={!isIn}>
        <a className="skip" href="#main">
          Skip to the content
        </a>
        <header>
          <strong>Rota</strong>
          <nav aria-label="Pages">
            {PAGES.map((page) => (
              <Link key={page.to} to={page.to} activeProps={{ "aria-current": "page" }}>
                {page.name}
                {page.to === "/inbox" && <Badge />}
                {page.to === "/alerts" && <AlertBadge />}
              </Link>
            ))}
          </nav>
          <NamespaceField />
          <ReadOnly />
          <button type="button" onClick={() => setPalette(true)}>
            Find
          </button>
          <button type="button" onClick={() => setHelp(true)} aria-label="Keyboard shortcuts">
            ?
          </button>
          {!needsNoToken() && (
            <button
              type="button"
              onClick={() => {
                forgetPush();
                void closeSession();
              }}
            >
              Sign out
            </button>
          )}
        </header>
        {isWaiting && (
          <p role="status" className="problem">
            The control plane has not answered for 10 s. A browser has six connections to a server: close
            other windows of the control centre, if there are many.
          </p>
        )}
        <main id="main" tabIndex={-1}>
          <Outlet />
        </main>
        <Dialog open={palette} onClose={() => setPalette(false)} title="Find">
          <Palette onClose={() => setPalette(false)} onHelp={() => setHelp(true)} />
        </Dialog>
        <Dialog open={help} onClose={() => setHelp(false)} title="Keyboard">
          <dl className="pairs">
            {PAGES.map((page) => (
              <div key={page.key}>
                <dt>
                  <kbd>{page.key}</kbd>
                </dt>
                <dd>{page.name}</dd>
              </div>
            ))}
            <div>
              <dt>
                <kbd>j</kbd> <kbd>k</kbd>
              </dt>
              <dd>Next or previous row</dd>
            </div>
            <div>
              <dt>
                <kbd>Enter</kbd>
              </dt>
              <dd>Open the row</dd>
            </div>
            <div>
              <dt>
                <kbd>x</kbd>
              </dt>
              <dd>Select the row</dd>
            </div>
            <div>
              <dt>
                <kbd>?</kbd>
              </dt>
              <dd>This list</dd>
            </div>
            <div>
              <dt>
                <kbd>Ctrl</kbd> <kbd>k</kbd>
              </dt>
              <dd>Find a page, a task, a workflow or a command</dd>
            </div>
            <div>
              <dt>
                <kbd>Esc</kbd>
              </dt>
              <dd>Close</dd>
            </div>
          </dl>
        </Dialog>
      </div>
    </Feeds>
  );
}

/** Changes that every page may follow. */
function Feeds({ children }: { children: ReactNode }) {
  return (
    <FeedProvider of={TASKS}>
      <FeedProvider of={WORKFLOWS}>{children}</FeedProvider>
    </FeedProvider>
  );
}

function Badge() {
  useWaitingUpdates();
  useApprovalUpdates();
  useNotices();
  const { tasks = [], more = false, isCut = false } = useWaiting().data ?? {};
  const { all = [] } = useApprovals().data ?? {};
  const known = tasks.length + all.length;
  // Nothing may ever wait beyond the tasks that were looked through: that alone is no reason to open the inbox.
  const count = `${known}${more || (isCut && known > 0) ? "+" : ""}`;
  const title = useSyncExternalStore(onPageTitle, pageTitle);
  const isIn = useSyncExternalStore(onSignIn, isSignedIn);
  return (
    <>
      {isIn && <title>{tabTitle(title, count)}</title>}
      {count !== "0" && (
        <span className="badge">
          {count}
          <span className="hidden"> waiting</span>
        </span>
      )}
    </>
  );
}

function AlertBadge() {
  const count = useAlerts().data?.length ?? 0;
  return count > 0 ? (
    <span className="badge">
      {count}
      <span className="hidden"> {count === 1 ? "alert" : "alerts"}</span>
    </span>
  ) : null;
}

/** What viewers see in place of actions. */
function ReadOnly() {
  return useMayAct() ? null : <span className="quiet">read only</span>;
}

function NamespaceField() {
  const namespace = useNamespace();
  return (
    <form
      className="namespace"
      onSubmit={(event) => {
        event.preventDefault();
        setNamespace(String(new FormData(event.currentTarget).get("namespace") ?? ""));
      }}
    >
      <label>
        Namespace
        <input
          name="namespace"
          key={namespace}
          defaultValue={namespace}
          required
          pattern="[a-z0-9-]+"
          size={12}
        />
      </label>
    </form>
  );
}
