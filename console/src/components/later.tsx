import { lazyRouteComponent } from "@tanstack/react-router";
import { type FunctionComponent, lazy } from "react";
import { Heading } from "./Heading";

/** Shown in place of what cannot be loaded: the files of an older version do not exist after an upgrade. */
export function NotLoaded() {
  return (
    <div role="alert">
      <p className="problem">
        This part of the page cannot be loaded. If the control plane was upgraded, this window is of the older
        version: reload it.
      </p>
      <p className="quiet">
        Drafts of workflows and of changed tasks stay. Other text that you have typed and not sent does not.
      </p>
      <button type="button" onClick={() => location.reload()}>
        Reload
      </button>
    </div>
  );
}

function PageNotLoaded() {
  return (
    <>
      <Heading what="Not loaded" />
      <NotLoaded />
    </>
  );
}

/** Returns what handles a file that cannot be loaded. The browser's console has the cause, such as an error of the file itself. */
export function insteadOf<T>(replacement: T): (cause: unknown) => T {
  return (cause) => {
    console.error(cause);
    return replacement;
  };
}

/** A part of a page that is loaded when it is shown. If that fails, the page around it stays, with what was typed there. */
export function lazyPart<P>(load: () => Promise<{ default: FunctionComponent<P> }>) {
  return lazy(
    (): Promise<{ default: FunctionComponent<P> }> => load().catch(insteadOf({ default: NotLoaded })),
  );
}

/** A page that is loaded when it is opened. If that fails, the navigation stays; the router would reload the window by itself. */
export function lazyPage<C>(load: () => Promise<C>) {
  return lazyRouteComponent(async () => ({ default: await load().catch(insteadOf(PageNotLoaded)) }));
}
